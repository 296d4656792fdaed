/* Runs CUDA kernels on the CPU: what their source asks of the language and of the device, in C++.
 *
 * Compiled together with a .cu file (KERNEL_SOURCE) by what stands in for nvcc (nvcc.py) into a library that the simulated
 * libcuda loads in place of a cubin. The blocks of a grid run one after the other. A block's threads take turns: each runs to
 * the next barrier before another one begins, in an order that changes from barrier to barrier, so that a missing barrier or a
 * thread that relies on its neighbours shows. With KERNEL_HOST_THREADS=1 in the environment they are real threads, all at once, which
 * shows a missing atomic. Shared memory holds poison when a block begins. No warps: a kernel that uses their operations does not
 * compile.
 */
#include <pthread.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

struct Index {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

static Index gridDim, blockDim, blockIdx;
static thread_local Index threadIdx;

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("kernel_shared")))
extern "C" char __start_kernel_shared[], __stop_kernel_shared[];

static const int POISON = 0xCD;

/* ---- arithmetic: IEEE, as the compiler options of nvcc.py make sure ---- */

static inline float __fdiv_rn(float a, float b) { return a / b; }

static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- atomics ---- */

template <class T> static T atomicAdd(T *target, T value) { return __atomic_fetch_add(target, value, __ATOMIC_RELAXED); }

template <class T> static T atomicMax(T *target, T value) {
    T before = __atomic_load_n(target, __ATOMIC_RELAXED);
    while (before < value && !__atomic_compare_exchange_n(target, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}

/* ---- the threads of one block ---- */

struct Turns {
    static constexpr size_t STACK = 64 << 10;
    std::vector<ucontext_t> contexts;
    std::vector<std::vector<char>> stacks;
    std::vector<unsigned> order;
    std::vector<bool> done;
    std::mt19937 random{0};
    ucontext_t scheduler;
    unsigned current = 0;
    const std::pair<void (*)(void *), void *> *body = nullptr;
};

static Turns turns;
static pthread_barrier_t barrier;
static bool real_threads;

static void __syncthreads() {
    if (real_threads) {
        pthread_barrier_wait(&barrier);
    } else {
        swapcontext(&turns.contexts[turns.current], &turns.scheduler);
    }
}

static void enter_thread() {
    turns.body->first(turns.body->second);
    turns.done[turns.current] = true;
}

/* Every thread runs to its next barrier, then every one to the one after, until all are through. */
static void run_in_turns(unsigned threads) {
    turns.contexts.resize(threads);
    turns.done.assign(threads, false);
    while (turns.stacks.size() < threads) turns.stacks.emplace_back(Turns::STACK);
    turns.order.resize(threads);
    for (unsigned t = 0; t < threads; t++) {
        turns.order[t] = t;
        getcontext(&turns.contexts[t]);
        turns.contexts[t].uc_stack.ss_sp = turns.stacks[t].data();
        turns.contexts[t].uc_stack.ss_size = Turns::STACK;
        turns.contexts[t].uc_link = &turns.scheduler;
        makecontext(&turns.contexts[t], enter_thread, 0);
    }
    for (bool again = true; again;) {
        again = false;
        std::shuffle(turns.order.begin(), turns.order.end(), turns.random);
        for (unsigned t : turns.order) {
            if (turns.done[t]) continue;
            turns.current = t;
            threadIdx = {t, 0, 0};
            swapcontext(&turns.scheduler, &turns.contexts[t]);
            again = again || !turns.done[t];
        }
    }
}

static void run_at_once(unsigned threads) {
    pthread_barrier_init(&barrier, nullptr, threads);
    std::vector<std::thread> running;
    for (unsigned t = 0; t < threads; t++) {
        running.emplace_back([t] {
            threadIdx = {t, 0, 0};
            pthread_barrier_wait(&barrier); /* or the first would be through before the last begins */
            turns.body->first(turns.body->second);
        });
    }
    for (std::thread &each : running) each.join();
    pthread_barrier_destroy(&barrier);
}

#include KERNEL_SOURCE

/* ---- launches ---- */

typedef bool (*IsDevice)(const void *);
enum Fault { FINE = 0, NO_SUCH_KERNEL = 1, WRONG_ARGUMENTS = 2, NO_DEVICE_MEMORY = 3 };

/* Takes arguments one after the other from where the launch packed them, each aligned as C aligns it. */
struct Packed {
    const char *content;
    size_t size, at;
    bool fits;
    bool all_on_device;
    IsDevice is_device;

    template <class T> T take() {
        T value{};
        at = (at + alignof(T) - 1) / alignof(T) * alignof(T);
        fits = fits && at + sizeof(T) <= size;
        if (fits) std::memcpy(&value, content + at, sizeof(T));
        at += sizeof(T);
        if constexpr (std::is_pointer_v<T>) all_on_device = all_on_device && fits && is_device(value);
        return value;
    }
};

template <class... A> static Fault launch(void (*kernel)(A...), Packed packed, unsigned grid, unsigned block) {
    std::tuple<A...> arguments{packed.take<A>()...}; /* braces: in this order */
    if (!packed.fits || packed.at != packed.size) return WRONG_ARGUMENTS;
    if (!packed.all_on_device) return NO_DEVICE_MEMORY;
    auto call = [&] { std::apply(kernel, arguments); };
    std::pair<void (*)(void *), void *> body{[](void *call_) { (*static_cast<decltype(call) *>(call_))(); }, &call};
    turns.body = &body;
    const char *threads = std::getenv("KERNEL_HOST_THREADS");
    real_threads = threads && *threads && *threads != '0';
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    for (unsigned b = 0; b < grid; b++) {
        blockIdx = {b, 0, 0};
        std::memset(__start_kernel_shared, POISON, __stop_kernel_shared - __start_kernel_shared);
        real_threads ? run_at_once(block) : run_in_turns(block);
    }
    return FINE;
}

#define KERNELS(each) each(look_float32) each(look_float16) each(tally_float32) each(tally_float16) each(fold)

extern "C" int kernel_host_has(const char *name) {
#define SAME(kernel) || std::string(name) == #kernel
    return false KERNELS(SAME);
}

extern "C" int kernel_host_launch(
    const char *name, const void *content, size_t size, unsigned grid, unsigned block, IsDevice is_device) {
    Packed packed{static_cast<const char *>(content), size, 0, true, true, is_device};
#define LAUNCH(kernel) if (std::string(name) == #kernel) return launch(kernel, packed, grid, block);
    KERNELS(LAUNCH)
    return NO_SUCH_KERNEL;
}
