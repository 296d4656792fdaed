/* Histograms of |x| on the GPU, bit for bit what trtcalib/core/tally.py counts on the CPU.
 *
 * A batch of a tensor takes one launch of tally_* once its range is known: it counts what lies inside the range and finds the
 * batch's maximum on the way. Only when that exceeds the range does the host double it: fold sums bins in pairs, and tally_*
 * counts the values that were outside. A range that is not known yet takes look_*, which only finds the maximum, first.
 *
 * The index of a value is min(floor(f32(|x| / range) * 2048), 2047) with an IEEE division, which __fdiv_rn is whatever the compiler's
 * flags; subnormal numbers must not be flushed to zero (-ftz=false, nvcc's default).
 *
 * Magnitudes are compared as integers: float32 bits without the sign order as the values do, with infinity and then NaN on top.
 *
 * One launch takes fewer than 2^31 values, so that no 32-bit count within it can wrap; what is kept from launch to launch has
 * 64 bits. The host sees to it (histograms.py). No header is included, so that NVRTC compiles this too.
 */

#define BINS 2048
#define COPIES 2 /* of the bins per block; neighbouring lanes count in different ones, so that equal values collide half as often */
#define THREADS 512
/* Blocks that a multiprocessor has room for: with more registers per thread the last ones would come after all others. */
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 800)
#define RESIDENT 2
#elif defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 870 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
#define RESIDENT 3
#else
#define RESIDENT 4
#endif
#define INFINITY_BITS 0x7f800000u

typedef unsigned int u32;
typedef unsigned long long u64;

/* What one or more launches saw of a batch; histograms.py names the same fields in the same order. */
struct Seen {
    u64 infinite; /* infinite values */
    u64 at_range; /* values equal to the range; counted in the last bin */
    u32 top;      /* bits of the largest finite magnitude */
    u32 nan;      /* whether there is a NaN */
};

/* Which values are counted, and where. */
struct Window {
    u32 from;       /* bits of the smallest magnitude that is counted ... */
    u32 to;         /* ... and of the largest */
    u32 range_bits; /* bits of the range; no value's where it is past float32 */
    float range;    /* multiplied with shrink */
    float shrink;   /* 1, or what brings a range that doubling took past float32 back into it; exact, like the doubling */
};

/* How values lie in memory: as what, how many per 16-byte load, and how to get the bits of a magnitude as float32. */
struct Float32 {
    typedef u32 Word;
    enum { PER_LOAD = 4 };

    static __device__ u32 magnitude(u32 word) { return word & 0x7fffffffu; }

    template <class Visitor> static __device__ void visit(u32 word, Visitor &visitor) { visitor(magnitude(word)); }
};

struct Float16 {
    typedef unsigned short Word;
    enum { PER_LOAD = 8 };

    /* Moved to where float32 has them, the 15 bits are a number 2^112 times too small; the product is exact, subnormals included. */
    static __device__ u32 magnitude(u32 half) {
        u32 moved = (half & 0x7fffu) << 13;
        if ((half & 0x7c00u) == 0x7c00u) return moved | INFINITY_BITS;
        return __float_as_uint(__uint_as_float(moved) * 5192296858534827628530496329220096.0f);
    }

    template <class Visitor> static __device__ void visit(u32 word, Visitor &visitor) {
        visitor(magnitude(word & 0xffffu));
        visitor(magnitude(word >> 16));
    }
};

template <class Format, class Visitor> __device__ void visit_load(const uint4 &load, Visitor &visitor) {
    Format::visit(load.x, visitor);
    Format::visit(load.y, visitor);
    Format::visit(load.z, visitor);
    Format::visit(load.w, visitor);
}

/* Show this thread's share of the values: 16 bytes at a time, but for those before and behind the 16-byte boundaries. */
template <class Format, class Visitor> __device__ void visit_share(const void *values, u64 size, Visitor &visitor) {
    const typename Format::Word *words = (const typename Format::Word *)values;
    u64 head = (16 - (u64)values % 16) % 16 / sizeof(typename Format::Word);
    if (head > size) head = size;
    u64 loads = (size - head) / Format::PER_LOAD;
    u64 tail = head + loads * Format::PER_LOAD;
    u64 me = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    u64 stride = (u64)gridDim.x * blockDim.x;

    if (me < head) visitor(Format::magnitude(words[me]));
    if (me < size - tail) visitor(Format::magnitude(words[tail + me]));

    const uint4 *aligned = (const uint4 *)(words + head);
    u64 at = me;
    /* Two loads are under way while neither is counted: counting leaves the memory idle. */
    for (; at + stride < loads; at += 2 * stride) {
        uint4 first = aligned[at];
        uint4 second = aligned[at + stride];
        visit_load<Format>(first, visitor);
        visit_load<Format>(second, visitor);
    }
    if (at < loads) {
        uint4 last = aligned[at];
        visit_load<Format>(last, visitor);
    }
}

/* Finds maximum, infinities and NaN. */
struct Look {
    u32 top, infinite, nan;

    __device__ void operator()(u32 magnitude) {
        if (magnitude < INFINITY_BITS) {
            top = magnitude > top ? magnitude : top;
        } else if (magnitude == INFINITY_BITS) {
            infinite++;
        } else {
            nan = 1;
        }
    }
};

__device__ inline void clear(Seen *seen) {
    if (threadIdx.x == 0) {
        seen->infinite = 0;
        seen->at_range = 0;
        seen->top = 0;
        seen->nan = 0;
    }
}

/* First within the block, then one thread for all: every block adds to the same few words. */
__device__ inline void gather(const Look &look, u32 at_range, Seen *block, Seen *seen) {
    if (look.top) atomicMax(&block->top, look.top);
    if (look.infinite) atomicAdd(&block->infinite, (u64)look.infinite);
    if (look.nan) atomicMax(&block->nan, 1u);
    if (at_range) atomicAdd(&block->at_range, (u64)at_range);
    __syncthreads();
    if (threadIdx.x == 0) {
        if (block->top) atomicMax(&seen->top, block->top);
        if (block->infinite) atomicAdd(&seen->infinite, block->infinite);
        if (block->nan) atomicMax(&seen->nan, 1u);
        if (block->at_range) atomicAdd(&seen->at_range, block->at_range);
    }
}

template <class Format> __device__ void look_at(const void *values, u64 size, Seen *seen, Seen *block) {
    clear(block);
    __syncthreads();
    Look look = {0, 0, 0};
    visit_share<Format>(values, size, look);
    gather(look, 0, block, seen);
}

/* Finds the same, and counts what is inside the window. */
struct Count {
    Look look;
    Window window;
    u32 at_range, zeros;
    u32 *mine; /* this thread's copy of the bins */

    __device__ void operator()(u32 magnitude) {
        look(magnitude);
        /* Zeros, half of all values after a ReLU, would queue up at bin 0: every thread counts its own. */
        if (magnitude == 0) {
            zeros++;
        } else if (magnitude >= window.from && magnitude <= window.to) {
            at_range += magnitude == window.range_bits;
            float position = __fdiv_rn(__uint_as_float(magnitude) * window.shrink, window.range) * (float)BINS;
            u32 bin = position < (float)(BINS - 1) ? (u32)position : BINS - 1;
            atomicAdd(&mine[bin * COPIES], 1u);
        }
    }
};

template <class Format>
__device__ void tally(const void *values, u64 size, Window window, u64 *bins, Seen *seen, u32 *counts, Seen *block) {
    for (u32 i = threadIdx.x; i < BINS * COPIES; i += blockDim.x) counts[i] = 0;
    clear(block);
    __syncthreads();

    Count count = {{0, 0, 0}, window, 0, 0, counts + threadIdx.x % COPIES};
    visit_share<Format>(values, size, count);
    if (count.zeros && window.from == 0) atomicAdd(&count.mine[0], count.zeros);
    gather(count.look, count.at_range, block, seen); /* its barrier stands before what follows, too */

    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
        u32 sum = 0;
        for (u32 copy = 0; copy < COPIES; copy++) sum += counts[bin * COPIES + copy];
        if (sum) atomicAdd(&bins[bin], (u64)sum);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) look_float32(const void *values, u64 size, Seen *seen) {
    __shared__ Seen block;
    look_at<Float32>(values, size, seen, &block);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) look_float16(const void *values, u64 size, Seen *seen) {
    __shared__ Seen block;
    look_at<Float16>(values, size, seen, &block);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
tally_float32(const void *values, u64 size, u64 *bins, Seen *seen, u32 from, u32 to, u32 range_bits, float range, float shrink) {
    __shared__ u32 counts[BINS * COPIES];
    __shared__ Seen block;
    Window window = {from, to, range_bits, range, shrink};
    tally<Float32>(values, size, window, bins, seen, counts, &block);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
tally_float16(const void *values, u64 size, u64 *bins, Seen *seen, u32 from, u32 to, u32 range_bits, float range, float shrink) {
    __shared__ u32 counts[BINS * COPIES];
    __shared__ Seen block;
    Window window = {from, to, range_bits, range, shrink};
    tally<Float16>(values, size, window, bins, seen, counts, &block);
}

/* Take values out of the last bin that the next launch of tally_* counts anew, then sum groups of 2^times bins; one block.
 * More than 11 doublings leave everything in bin 0, as 11 do. */
extern "C" __global__ void __launch_bounds__(THREADS) fold(u64 *bins, u64 taken_back, u32 times) {
    __shared__ u64 before[BINS];
    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
        before[bin] = bins[bin] - (bin == BINS - 1 ? taken_back : 0);
    }
    __syncthreads();
    u32 group = times < 11 ? 1u << times : BINS;
    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
        u64 sum = 0;
        if (bin < BINS / group) {
            for (u32 i = 0; i < group; i++) sum += before[bin * group + i];
        }
        bins[bin] = sum;
    }
}
