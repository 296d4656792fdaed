/* A stand-in for libcuda.so.1 whose device memory is host memory, so that real PyCUDA runs without a GPU.
 *
 * It is strict where programs go wrong: every address is looked up before it is used, an asynchronous copy really stays
 * undone until something waits for it, contexts are current per thread, and memory holds poison before it is written and
 * after it is freed. What is not written here is refused by generated functions (install.py) with
 * CUDA_ERROR_NOT_SUPPORTED. NVIDIA's own cuda.h declares all of it, so the compiler checks every signature and the header's
 * macros give each function the versioned name that programs link against.
 *
 * Kernels are no machine code: what stands in for nvcc (nvcc.py) makes a host library of their source (kernel_host.cpp), which
 * is loaded here where a driver would load a cubin.
 *
 * Read once, by cuInit: SIMULATED_CUDA_NO_DEVICE=1, SIMULATED_CUDA_OLD_DRIVER=1, SIMULATED_CUDA_MEMORY=<bytes>.
 */
#define _GNU_SOURCE
#include <cuda.h>

#include <dlfcn.h>
#include <elf.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    DRIVER_VERSION = 12090,     /* CUDA 12.9, as the headers that PyCUDA is built with */
    OLD_DRIVER_VERSION = 11040, /* too old for TensorRT 10 */
    MAX_CONTEXT_DEPTH = 64,
    ALIGNMENT = 256,            /* what cuMemAlloc promises */
    PAGE = 4096,
    MAX_THREADS = 1024,         /* of a block */
    FRESH_POISON = 0xCD,
    FREED_POISON = 0xDD,
    NEVER = -1,
};
static const size_t DEFAULT_MEMORY = (size_t)8 << 30;

/* A range of addresses that somebody allocated: device memory, or pinned host memory. */
typedef struct Block {
    struct Block *next;
    char *start;
    size_t size;
    CUcontext owner;
    bool registered; /* pinned by cuMemHostRegister: the memory is the caller's own */
} Block;

/* Where work queues up. Number 0 is the default stream; it waits for all blocking streams, and they for it. */
typedef struct {
    uint64_t number;
    bool blocking;
} Queue;

typedef enum { TO_DEVICE, TO_HOST, ON_DEVICE, FILL, WAIT, LAUNCH } Kind;

/* Work that was asked for and not yet done. */
typedef struct Operation {
    struct Operation *next;
    uint64_t number; /* in the order of asking, over all queues */
    Queue queue;
    Kind kind;
    char *target;
    const char *source;
    size_t size;
    char *staged;       /* our own copy of a pageable source, as CUDA takes one before it returns */
    bool caller_waits;  /* the host memory cannot go away meanwhile, pinned or not */
    uint32_t pattern;   /* FILL: what to write */
    size_t width;       /* FILL: bytes of the pattern */
    Queue awaited;      /* WAIT: for this queue ... */
    uint64_t up_to;     /* ... up to and with this operation */
    CUfunction kernel;  /* LAUNCH: with the arguments in `staged` */
    unsigned int grid;  /* LAUNCH: blocks */
    unsigned int block; /* LAUNCH: threads of a block */
} Operation;

struct CUctx_st {
    bool primary;
    bool alive;
    uint64_t retained; /* how many owners: cuDevicePrimaryCtxRetain, or cuCtxCreate and cuCtxAttach */
};

struct CUstream_st {
    CUstream next;
    CUcontext owner;
    Queue queue;
};

struct CUevent_st {
    CUevent next;
    CUcontext owner;
    bool timed;
    bool recorded;
    Queue queue;
    uint64_t up_to;
    double milliseconds;
};

struct CUmod_st {
    CUmodule next;
    CUcontext owner;
    void *library;
    CUfunction functions;
};

struct CUfunc_st {
    CUfunction next;
    CUmodule module;
    char name[64];
};

/* What tests look at; fake_cuda.py names the same fields in the same order. */
typedef struct {
    uint64_t live_bytes;
    uint64_t live_allocations;
    uint64_t peak_bytes;
    uint64_t pinned_allocations;
    uint64_t streams;
    uint64_t events;
    uint64_t created_contexts;
    uint64_t primary_retained;
    uint64_t contexts_on_this_thread;
    uint64_t pending_copies;
    uint64_t pageable_async_copies;
    uint64_t lost_copies;
    uint64_t abandoned_allocations;
    uint64_t refused_calls;
} Counts;

static pthread_mutex_t driver_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool initialised;
static size_t capacity;
static long allocations_until_failure = NEVER;
static Block *device_blocks, *pinned_blocks;
static Operation *operations; /* oldest first */
static CUstream streams;
static CUevent events;
static CUmodule modules;
static uint64_t launches;
static struct CUctx_st primary = {.primary = true};
static uint64_t last_operation, last_queue;
static Counts counts; /* only what adds up over time; the rest is counted when asked for */
static char last_refused[64];

static _Thread_local CUcontext context_stack[MAX_CONTEXT_DEPTH];
static _Thread_local int context_depth;

/* ---- every entry point holds one lock while it runs, and says first what is missing ---- */

static int enter_driver(void) {
    pthread_mutex_lock(&driver_mutex);
    return 0;
}

static void leave_driver(int *inside) {
    (void)inside;
    pthread_mutex_unlock(&driver_mutex);
}

static CUcontext current_context(void) { return context_depth ? context_stack[context_depth - 1] : NULL; }

static CUresult driver_state(void) { return initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED; }

static CUresult context_state(void) {
    if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (!context_depth) return CUDA_ERROR_INVALID_CONTEXT;
    return current_context()->alive ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

#define LOCKED __attribute__((cleanup(leave_driver), unused)) int inside = enter_driver()
#define REQUIRE(condition, otherwise) do { if (!(condition)) return (otherwise); } while (0)
#define OR_RETURN(call) do { CUresult result = (call); if (result != CUDA_SUCCESS) return result; } while (0)
#define NEEDS_DRIVER LOCKED; OR_RETURN(driver_state())
#define NEEDS_CONTEXT LOCKED; OR_RETURN(context_state())

/* ---- blocks of memory ---- */

/* The block that holds all of these bytes, or NULL. */
static Block *block_around(Block *list, const char *start, size_t size) {
    for (Block *block = list; block; block = block->next) {
        if (start >= block->start && start < block->start + block->size) {
            return size <= block->size - (size_t)(start - block->start) ? block : NULL;
        }
    }
    return NULL;
}

static Block *add_block(Block **list, char *start, size_t size) {
    Block *block = malloc(sizeof *block);
    *block = (Block){.next = *list, .start = start, .size = size, .owner = current_context()};
    *list = block;
    return block;
}

/* Take the block that begins exactly here off the list, or return NULL. */
static Block *take_block(Block **list, const char *start) {
    for (Block **link = list; *link; link = &(*link)->next) {
        if ((*link)->start == start) {
            Block *block = *link;
            *link = block->next;
            return block;
        }
    }
    return NULL;
}

static void release_block(Block *block) {
    if (!block->registered) {
        memset(block->start, FREED_POISON, block->size);
        free(block->start);
    }
    free(block);
}

static uint64_t block_count(const Block *list) {
    uint64_t count = 0;
    for (; list; list = list->next) count++;
    return count;
}

static size_t live_bytes(void) {
    size_t bytes = 0;
    for (const Block *block = device_blocks; block; block = block->next) bytes += block->size;
    return bytes;
}

static char *poisoned_memory(size_t alignment, size_t size) {
    if (size > SIZE_MAX - alignment) return NULL;
    char *start = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (start) memset(start, FRESH_POISON, size);
    return start;
}

/* ---- queued work ---- */

static CUresult complete(Queue queue, uint64_t up_to);

static void fill(const Operation *operation) {
    for (size_t at = 0; at < operation->size; at += operation->width) {
        memcpy(operation->target + at, &operation->pattern, operation->width);
    }
}

static bool on_device(const void *pointer) { return block_around(device_blocks, pointer, 1); }

/* The same numbers as in kernel_host.cpp. */
enum { KERNEL_RAN, NO_SUCH_KERNEL, WRONG_ARGUMENTS, NO_DEVICE_MEMORY };

static CUresult run_kernel(const Operation *operation) {
    int (*run)(const char *, const void *, size_t, unsigned int, unsigned int, bool (*)(const void *));
    *(void **)&run = dlsym(operation->kernel->module->library, "kernel_host_launch");
    launches++;
    switch (run(operation->kernel->name, operation->staged, operation->size, operation->grid, operation->block, on_device)) {
    case KERNEL_RAN: return CUDA_SUCCESS;
    case NO_DEVICE_MEMORY: counts.lost_copies++; return CUDA_ERROR_ILLEGAL_ADDRESS;
    default: return CUDA_ERROR_LAUNCH_FAILED;
    }
}

/* Do one piece of work. Memory that is gone by now is a bug of the program: counted and reported, never touched. */
static CUresult perform(const Operation *operation) {
    if (operation->kind == WAIT) return complete(operation->awaited, operation->up_to);
    if (operation->kind == LAUNCH) return run_kernel(operation);

    Block *target_list = operation->kind == TO_HOST ? pinned_blocks : device_blocks;
    Block *source_list = operation->kind == TO_DEVICE ? pinned_blocks : device_blocks;
    bool safe_host = operation->staged || operation->caller_waits;
    bool target_there = (operation->kind == TO_HOST && safe_host)
                     || block_around(target_list, operation->target, operation->size);
    bool source_there = operation->kind == FILL || (operation->kind == TO_DEVICE && safe_host)
                     || block_around(source_list, operation->source, operation->size);
    if (!target_there || !source_there) {
        counts.lost_copies++;
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    if (operation->kind == FILL) {
        fill(operation);
    } else {
        memmove(operation->target, operation->staged ? operation->staged : operation->source, operation->size);
    }
    return CUDA_SUCCESS;
}

/* The last operation of the blocking streams that must be done before work of `queue` up to `up_to` is. */
static uint64_t last_that_comes_before(Queue queue, uint64_t up_to) {
    if (!queue.blocking) return 0;
    if (queue.number == 0) return up_to;
    uint64_t own = 0, of_default_stream = 0;
    for (const Operation *each = operations; each && each->number <= up_to; each = each->next) {
        if (each->queue.number == queue.number) own = each->number;
    }
    for (const Operation *each = operations; each && each->number < own; each = each->next) {
        if (each->queue.number == 0) of_default_stream = each->number;
    }
    return of_default_stream;
}

/* Where the next operation is linked that must be done so that `queue` is through with `up_to`; NULL when it is. */
static Operation **next_due(Queue queue, uint64_t up_to) {
    uint64_t before = last_that_comes_before(queue, up_to);
    for (Operation **link = &operations; *link && (*link)->number <= up_to; link = &(*link)->next) {
        const Operation *each = *link;
        if (each->queue.number == queue.number || (each->queue.blocking && each->number <= before)) return link;
    }
    return NULL;
}

static CUresult perform_and_remove(Operation **link) {
    Operation *operation = *link;
    *link = operation->next;
    CUresult result = perform(operation);
    free(operation->staged);
    free(operation);
    return result;
}

/* Do everything that was asked of a queue up to an operation. The first failure is the result, as when CUDA reports late. */
static CUresult complete(Queue queue, uint64_t up_to) {
    CUresult first_failure = CUDA_SUCCESS;
    for (Operation **link; (link = next_due(queue, up_to));) {
        CUresult result = perform_and_remove(link);
        if (first_failure == CUDA_SUCCESS) first_failure = result;
    }
    return first_failure;
}

static CUresult complete_everything(void) {
    CUresult first_failure = CUDA_SUCCESS;
    while (operations) {
        CUresult result = perform_and_remove(&operations);
        if (first_failure == CUDA_SUCCESS) first_failure = result;
    }
    return first_failure;
}

static const Queue default_queue = {.number = 0, .blocking = true};

static CUresult queue_of(CUstream stream, Queue *queue) {
    if (stream == NULL || stream == CU_STREAM_LEGACY) {
        *queue = default_queue;
        return CUDA_SUCCESS;
    }
    for (CUstream each = streams; each; each = each->next) {
        if (each == stream) {
            *queue = each->queue;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_HANDLE;
}

static uint64_t ask_for(Queue queue, Operation draft) {
    Operation *operation = malloc(sizeof *operation);
    *operation = draft;
    operation->next = NULL;
    operation->queue = queue;
    operation->number = ++last_operation;
    Operation **end = &operations;
    while (*end) end = &(*end)->next;
    *end = operation;
    return operation->number;
}

/* A synchronous call is work of the default stream that the caller waits for. */
static CUresult do_now(Operation draft) {
    draft.caller_waits = true;
    return complete(default_queue, ask_for(default_queue, draft));
}

/* Return from the calling function unless all these bytes are device memory. */
#define REQUIRE_DEVICE(pointer, size) \
    REQUIRE(block_around(device_blocks, address(pointer), (size)), CUDA_ERROR_INVALID_VALUE)

static char *address(CUdeviceptr pointer) { return (char *)(uintptr_t)pointer; }

/* ---- driver and device ---- */

static bool is_set(const char *name) {
    const char *value = getenv(name);
    return value && *value && strcmp(value, "0") != 0;
}

static size_t capacity_from_environment(void) {
    const char *text = getenv("SIMULATED_CUDA_MEMORY");
    return text && *text ? strtoull(text, NULL, 10) : DEFAULT_MEMORY;
}

CUresult cuInit(unsigned int flags) {
    LOCKED;
    REQUIRE(flags == 0, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(!is_set("SIMULATED_CUDA_OLD_DRIVER"), CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
    REQUIRE(!is_set("SIMULATED_CUDA_NO_DEVICE"), CUDA_ERROR_NO_DEVICE);
    if (!initialised) capacity = capacity_from_environment();
    initialised = true;
    return CUDA_SUCCESS;
}

/* Works before cuInit, as in CUDA: programs ask for the version to explain why cuInit failed. */
CUresult cuDriverGetVersion(int *version) {
    *version = is_set("SIMULATED_CUDA_OLD_DRIVER") ? OLD_DRIVER_VERSION : DRIVER_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    NEEDS_DRIVER;
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    NEEDS_DRIVER;
    REQUIRE(ordinal == 0, CUDA_ERROR_INVALID_DEVICE);
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    snprintf(name, (size_t)length, "simulated CUDA device (host memory)");
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice device) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    snprintf(text, (size_t)length, "0000:00:00.0");
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    *bytes = capacity;
    return CUDA_SUCCESS;
}

static int attribute_value(CUdevice_attribute attribute) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return 8; /* 8.6, an Ampere that every TensorRT of the rig supports */
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return 6;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return MAX_THREADS;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: return MAX_THREADS;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 28;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 1536;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: return 2;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: return 1;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: return 1;
    default: return 0;
    }
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    *value = attribute_value(attribute);
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    *major = attribute_value(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    *minor = attribute_value(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    return CUDA_SUCCESS;
}

#define ERROR_TEXT(name, text) case name: *answer = wants_name ? #name : text; return CUDA_SUCCESS
static CUresult describe(CUresult error, const char **answer, bool wants_name) {
    switch (error) {
    ERROR_TEXT(CUDA_SUCCESS, "no error");
    ERROR_TEXT(CUDA_ERROR_INVALID_VALUE, "invalid argument");
    ERROR_TEXT(CUDA_ERROR_OUT_OF_MEMORY, "out of memory");
    ERROR_TEXT(CUDA_ERROR_NOT_INITIALIZED, "initialization error");
    ERROR_TEXT(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected");
    ERROR_TEXT(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal");
    ERROR_TEXT(CUDA_ERROR_INVALID_CONTEXT, "invalid device context");
    ERROR_TEXT(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle");
    ERROR_TEXT(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid");
    ERROR_TEXT(CUDA_ERROR_NOT_FOUND, "named symbol not found");
    ERROR_TEXT(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure");
    ERROR_TEXT(CUDA_ERROR_NOT_READY, "device not ready");
    ERROR_TEXT(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered");
    ERROR_TEXT(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed");
    ERROR_TEXT(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part or all of the requested memory range is already mapped");
    ERROR_TEXT(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region");
    ERROR_TEXT(CUDA_ERROR_NOT_SUPPORTED, "operation not supported by the simulation");
    ERROR_TEXT(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "system has unsupported display driver / cuda driver combination");
    default: *answer = NULL; return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuGetErrorString(CUresult error, const char **text) { return describe(error, text, false); }

CUresult cuGetErrorName(CUresult error, const char **name) { return describe(error, name, true); }

/* ---- contexts: one stack per thread ---- */

static CUresult push_context(CUcontext context) {
    REQUIRE(context, CUDA_ERROR_INVALID_CONTEXT);
    REQUIRE(context->alive, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    REQUIRE(context_depth < MAX_CONTEXT_DEPTH, CUDA_ERROR_INVALID_VALUE);
    context_stack[context_depth++] = context;
    return CUDA_SUCCESS;
}

static CUcontext pop_context(void) { return context_stack[--context_depth]; }

/* What lives in a context goes with it. Device memory that was not freed before is counted as abandoned. */
static void end_context(CUcontext context) {
    Block **lists[] = {&device_blocks, &pinned_blocks};
    for (int list = 0; list < 2; list++) {
        for (Block **link = lists[list]; *link;) {
            if ((*link)->owner != context) {
                link = &(*link)->next;
                continue;
            }
            if (lists[list] == &device_blocks) counts.abandoned_allocations++;
            release_block(take_block(link, (*link)->start));
        }
    }
    for (CUstream *link = &streams; *link;) {
        CUstream stream = *link;
        if (stream->owner == context) *link = stream->next, free(stream);
        else link = &stream->next;
    }
    for (CUevent *link = &events; *link;) {
        CUevent event = *link;
        if (event->owner == context) *link = event->next, free(event);
        else link = &event->next;
    }
    context->alive = false;
}

CUresult cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device) {
    NEEDS_DRIVER;
    (void)flags;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    *context = calloc(1, sizeof **context); /* never freed: a later use must find that it is destroyed */
    (*context)->alive = true;
    (*context)->retained = 1;
    counts.created_contexts++;
    return push_context(*context);
}

static CUresult destroy_context(CUcontext context) {
    REQUIRE(context && context->alive && !context->primary, CUDA_ERROR_INVALID_CONTEXT);
    if (current_context() == context) pop_context();
    counts.created_contexts--;
    end_context(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxDestroy(CUcontext context) {
    NEEDS_DRIVER;
    return destroy_context(context);
}

CUresult cuCtxAttach(CUcontext *context, unsigned int flags) {
    NEEDS_CONTEXT;
    REQUIRE(flags == 0, CUDA_ERROR_INVALID_VALUE);
    *context = current_context();
    (*context)->retained++;
    return CUDA_SUCCESS;
}

/* Deprecated, and what PyCUDA ends the contexts with that it created. */
CUresult cuCtxDetach(CUcontext context) {
    NEEDS_CONTEXT;
    REQUIRE(context == current_context() && !context->primary, CUDA_ERROR_INVALID_CONTEXT);
    if (context->retained > 1) {
        context->retained--;
        return CUDA_SUCCESS;
    }
    return destroy_context(context);
}

CUresult cuCtxPushCurrent(CUcontext context) {
    NEEDS_DRIVER;
    return push_context(context);
}

CUresult cuCtxPopCurrent(CUcontext *context) {
    NEEDS_DRIVER;
    REQUIRE(context_depth, CUDA_ERROR_INVALID_CONTEXT);
    CUcontext popped = pop_context();
    if (context) *context = popped;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    NEEDS_DRIVER;
    REQUIRE(!context || context->alive, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    if (context_depth) pop_context();
    return context ? push_context(context) : CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    NEEDS_DRIVER;
    *context = current_context();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    NEEDS_CONTEXT;
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned int *version) {
    NEEDS_DRIVER;
    REQUIRE(!context || context->alive, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    *version = DRIVER_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void) {
    NEEDS_CONTEXT;
    return complete_everything();
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    primary.retained++;
    primary.alive = true;
    *context = &primary;
    return CUDA_SUCCESS;
}

/* The last release ends the context and, as CUDA documents, takes it off no thread's stack. */
CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    REQUIRE(primary.retained, CUDA_ERROR_INVALID_CONTEXT);
    if (--primary.retained == 0) end_context(&primary);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active) {
    NEEDS_DRIVER;
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    *flags = 0;
    *active = primary.alive;
    return CUDA_SUCCESS;
}

/* ---- memory ---- */

CUresult cuMemAlloc(CUdeviceptr *pointer, size_t size) {
    NEEDS_CONTEXT;
    REQUIRE(size, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(allocations_until_failure != 0, CUDA_ERROR_OUT_OF_MEMORY);
    size_t in_use = live_bytes();
    REQUIRE(size <= capacity && in_use <= capacity - size, CUDA_ERROR_OUT_OF_MEMORY);
    char *start = poisoned_memory(ALIGNMENT, size);
    REQUIRE(start, CUDA_ERROR_OUT_OF_MEMORY);
    if (allocations_until_failure > 0) allocations_until_failure--;
    add_block(&device_blocks, start, size);
    if (in_use + size > counts.peak_bytes) counts.peak_bytes = in_use + size;
    *pointer = (CUdeviceptr)(uintptr_t)start;
    return CUDA_SUCCESS;
}

/* Copies that are still queued do not delay this, because CUDA does not promise that they would: they are lost. */
CUresult cuMemFree(CUdeviceptr pointer) {
    NEEDS_CONTEXT;
    Block *block = take_block(&device_blocks, address(pointer));
    REQUIRE(block, CUDA_ERROR_INVALID_VALUE);
    release_block(block);
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(size_t *available, size_t *total) {
    NEEDS_CONTEXT;
    size_t in_use = live_bytes();
    *available = in_use < capacity ? capacity - in_use : 0;
    *total = capacity;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange(CUdeviceptr *base, size_t *size, CUdeviceptr pointer) {
    NEEDS_CONTEXT;
    Block *block = block_around(device_blocks, address(pointer), 1);
    REQUIRE(block, CUDA_ERROR_NOT_FOUND);
    if (base) *base = (CUdeviceptr)(uintptr_t)block->start;
    if (size) *size = block->size;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned int flags) {
    NEEDS_CONTEXT;
    (void)flags;
    REQUIRE(size, CUDA_ERROR_INVALID_VALUE);
    char *start = poisoned_memory(PAGE, size);
    REQUIRE(start, CUDA_ERROR_OUT_OF_MEMORY);
    add_block(&pinned_blocks, start, size);
    *pointer = start;
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *pointer) {
    NEEDS_CONTEXT;
    Block *block = block_around(pinned_blocks, pointer, 1);
    REQUIRE(block && block->start == pointer && !block->registered, CUDA_ERROR_INVALID_VALUE);
    release_block(take_block(&pinned_blocks, pointer));
    return CUDA_SUCCESS;
}

CUresult cuMemHostRegister(void *pointer, size_t size, unsigned int flags) {
    NEEDS_CONTEXT;
    (void)flags;
    REQUIRE(pointer && size, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(!block_around(pinned_blocks, pointer, 1), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    add_block(&pinned_blocks, pointer, size)->registered = true;
    return CUDA_SUCCESS;
}

CUresult cuMemHostUnregister(void *pointer) {
    NEEDS_CONTEXT;
    Block *block = block_around(pinned_blocks, pointer, 1);
    REQUIRE(block && block->start == pointer && block->registered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    release_block(take_block(&pinned_blocks, pointer));
    return CUDA_SUCCESS;
}

/* ---- copies and fills ---- */

CUresult cuMemcpyHtoD(CUdeviceptr target, const void *source, size_t size) {
    NEEDS_CONTEXT;
    REQUIRE(size, CUDA_SUCCESS);
    REQUIRE_DEVICE(target, size);
    return do_now((Operation){.kind = TO_DEVICE, .target = address(target), .source = source, .size = size});
}

CUresult cuMemcpyDtoH(void *target, CUdeviceptr source, size_t size) {
    NEEDS_CONTEXT;
    REQUIRE(size, CUDA_SUCCESS);
    REQUIRE_DEVICE(source, size);
    return do_now((Operation){.kind = TO_HOST, .target = target, .source = address(source), .size = size});
}

CUresult cuMemcpyDtoD(CUdeviceptr target, CUdeviceptr source, size_t size) {
    NEEDS_CONTEXT;
    REQUIRE(size, CUDA_SUCCESS);
    REQUIRE_DEVICE(target, size);
    REQUIRE_DEVICE(source, size);
    return do_now((Operation){.kind = ON_DEVICE, .target = address(target), .source = address(source), .size = size});
}

/* From pageable memory CUDA first takes a copy of its own, so the source may change at once; the device gets it later. */
CUresult cuMemcpyHtoDAsync(CUdeviceptr target, const void *source, size_t size, CUstream stream) {
    NEEDS_CONTEXT;
    Queue queue;
    OR_RETURN(queue_of(stream, &queue));
    REQUIRE(size, CUDA_SUCCESS);
    REQUIRE_DEVICE(target, size);
    Operation copy = {.kind = TO_DEVICE, .target = address(target), .source = source, .size = size};
    if (!block_around(pinned_blocks, source, size)) {
        counts.pageable_async_copies++;
        copy.staged = malloc(size);
        REQUIRE(copy.staged, CUDA_ERROR_OUT_OF_MEMORY);
        memcpy(copy.staged, source, size);
    }
    ask_for(queue, copy);
    return CUDA_SUCCESS;
}

/* To pageable memory CUDA returns only when the copy is done, "async" or not. */
CUresult cuMemcpyDtoHAsync(void *target, CUdeviceptr source, size_t size, CUstream stream) {
    NEEDS_CONTEXT;
    Queue queue;
    OR_RETURN(queue_of(stream, &queue));
    REQUIRE(size, CUDA_SUCCESS);
    REQUIRE_DEVICE(source, size);
    bool pinned = block_around(pinned_blocks, target, size);
    Operation copy = {
        .kind = TO_HOST, .target = target, .source = address(source), .size = size, .caller_waits = !pinned};
    uint64_t number = ask_for(queue, copy);
    if (pinned) return CUDA_SUCCESS;
    counts.pageable_async_copies++;
    return complete(queue, number);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr target, CUdeviceptr source, size_t size, CUstream stream) {
    NEEDS_CONTEXT;
    Queue queue;
    OR_RETURN(queue_of(stream, &queue));
    REQUIRE(size, CUDA_SUCCESS);
    REQUIRE_DEVICE(target, size);
    REQUIRE_DEVICE(source, size);
    ask_for(queue,
            (Operation){.kind = ON_DEVICE, .target = address(target), .source = address(source), .size = size});
    return CUDA_SUCCESS;
}

static CUresult fill_device(CUdeviceptr target, uint32_t pattern, size_t width, size_t count, const CUstream *stream) {
    NEEDS_CONTEXT;
    Queue queue;
    OR_RETURN(queue_of(stream ? *stream : NULL, &queue));
    REQUIRE(count, CUDA_SUCCESS);
    REQUIRE(target % width == 0 && count <= SIZE_MAX / width, CUDA_ERROR_INVALID_VALUE);
    REQUIRE_DEVICE(target, count * width);
    Operation operation = {
        .kind = FILL, .target = address(target), .size = count * width, .pattern = pattern, .width = width};
    if (!stream) return do_now(operation);
    ask_for(queue, operation);
    return CUDA_SUCCESS;
}

CUresult cuMemsetD8(CUdeviceptr target, unsigned char value, size_t count) {
    return fill_device(target, value, sizeof value, count, NULL);
}

CUresult cuMemsetD16(CUdeviceptr target, unsigned short value, size_t count) {
    return fill_device(target, value, sizeof value, count, NULL);
}

CUresult cuMemsetD32(CUdeviceptr target, unsigned int value, size_t count) {
    return fill_device(target, value, sizeof value, count, NULL);
}

CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, CUstream stream) {
    return fill_device(target, value, sizeof value, count, &stream);
}

CUresult cuMemsetD16Async(CUdeviceptr target, unsigned short value, size_t count, CUstream stream) {
    return fill_device(target, value, sizeof value, count, &stream);
}

CUresult cuMemsetD32Async(CUdeviceptr target, unsigned int value, size_t count, CUstream stream) {
    return fill_device(target, value, sizeof value, count, &stream);
}

/* ---- streams ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    NEEDS_CONTEXT;
    CUstream created = calloc(1, sizeof *created);
    created->owner = current_context();
    created->queue = (Queue){.number = ++last_queue, .blocking = !(flags & CU_STREAM_NON_BLOCKING)};
    created->next = streams;
    streams = created;
    *stream = created;
    return CUDA_SUCCESS;
}

/* Returns at once, as CUDA does; what was queued is still done when something waits for it. */
CUresult cuStreamDestroy(CUstream stream) {
    NEEDS_CONTEXT;
    for (CUstream *link = &streams; *link; link = &(*link)->next) {
        if (*link == stream) {
            *link = stream->next;
            free(stream);
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuStreamSynchronize(CUstream stream) {
    NEEDS_CONTEXT;
    Queue queue;
    OR_RETURN(queue_of(stream, &queue));
    return complete(queue, last_operation);
}

/* There is no device that works meanwhile, so asking whether it is done gets it done: "not yet" once, then "yes". */
static CUresult query(Queue queue, uint64_t up_to) {
    if (!next_due(queue, up_to)) return CUDA_SUCCESS;
    OR_RETURN(complete(queue, up_to));
    return CUDA_ERROR_NOT_READY;
}

CUresult cuStreamQuery(CUstream stream) {
    NEEDS_CONTEXT;
    Queue queue;
    OR_RETURN(queue_of(stream, &queue));
    return query(queue, last_operation);
}

/* ---- events ---- */

static bool is_event(CUevent event) {
    for (CUevent each = events; each; each = each->next) {
        if (each == event) return true;
    }
    return false;
}

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
    NEEDS_CONTEXT;
    CUevent created = calloc(1, sizeof *created);
    created->owner = current_context();
    created->timed = !(flags & CU_EVENT_DISABLE_TIMING);
    created->next = events;
    events = created;
    *event = created;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    NEEDS_CONTEXT;
    for (CUevent *link = &events; *link; link = &(*link)->next) {
        if (*link == event) {
            *link = event->next;
            free(event);
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    NEEDS_CONTEXT;
    REQUIRE(is_event(event), CUDA_ERROR_INVALID_HANDLE);
    OR_RETURN(queue_of(stream, &event->queue));
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->recorded = true;
    event->up_to = last_operation;
    event->milliseconds = (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event) {
    NEEDS_CONTEXT;
    REQUIRE(is_event(event), CUDA_ERROR_INVALID_HANDLE);
    return event->recorded ? complete(event->queue, event->up_to) : CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event) {
    NEEDS_CONTEXT;
    REQUIRE(is_event(event), CUDA_ERROR_INVALID_HANDLE);
    return event->recorded ? query(event->queue, event->up_to) : CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    NEEDS_CONTEXT;
    REQUIRE(is_event(start) && is_event(end), CUDA_ERROR_INVALID_HANDLE);
    REQUIRE(start->recorded && end->recorded && start->timed && end->timed, CUDA_ERROR_INVALID_HANDLE);
    bool pending = next_due(start->queue, start->up_to) || next_due(end->queue, end->up_to);
    REQUIRE(!pending, CUDA_ERROR_NOT_READY);
    *milliseconds = (float)(end->milliseconds - start->milliseconds);
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags) {
    NEEDS_CONTEXT;
    (void)flags;
    Queue queue;
    OR_RETURN(queue_of(stream, &queue));
    REQUIRE(is_event(event), CUDA_ERROR_INVALID_HANDLE);
    if (event->recorded) {
        ask_for(queue, (Operation){.kind = WAIT, .awaited = event->queue, .up_to = event->up_to});
    }
    return CUDA_SUCCESS;
}

/* ---- kernels ---- */

/* The size of a library in memory: the table of its sections stands last. */
static size_t library_size(const void *image) {
    const Elf64_Ehdr *header = image;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_type != ET_DYN) return 0;
    return header->e_shoff + (size_t)header->e_shentsize * header->e_shnum;
}

static void *open_library(const void *image) {
    size_t size = library_size(image);
    int file = size ? memfd_create("kernels", MFD_CLOEXEC) : -1;
    if (file < 0) return NULL;
    void *library = NULL;
    if (write(file, image, size) == (ssize_t)size) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    close(file);
    if (library && !dlsym(library, "kernel_host_launch")) {
        dlclose(library);
        return NULL;
    }
    return library;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int size, CUjit_option *options, void **values) {
    NEEDS_CONTEXT;
    (void)size, (void)options, (void)values;
    void *library = open_library(image);
    REQUIRE(library, CUDA_ERROR_INVALID_IMAGE);
    CUmodule created = calloc(1, sizeof *created);
    created->owner = current_context();
    created->library = library;
    created->next = modules;
    modules = created;
    *module = created;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }

CUresult cuModuleUnload(CUmodule module) {
    NEEDS_CONTEXT;
    for (CUmodule *link = &modules; *link; link = &(*link)->next) {
        if (*link != module) continue;
        CUresult result = complete_everything();
        *link = module->next;
        for (CUfunction each = module->functions; each;) {
            CUfunction next = each->next;
            free(each);
            each = next;
        }
        dlclose(module->library);
        free(module);
        return result;
    }
    return CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    NEEDS_CONTEXT;
    int (*has)(const char *);
    *(void **)&has = dlsym(module->library, "kernel_host_has");
    REQUIRE(has && has(name), CUDA_ERROR_NOT_FOUND);
    CUfunction created = calloc(1, sizeof *created);
    created->module = module;
    snprintf(created->name, sizeof created->name, "%s", name);
    created->next = module->functions;
    module->functions = created;
    *function = created;
    return CUDA_SUCCESS;
}

/* Deprecated, and still what PyCUDA says before each launch, which names the shape again. */
CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z) {
    NEEDS_CONTEXT;
    REQUIRE(function && x > 0 && y > 0 && z > 0, CUDA_ERROR_INVALID_VALUE);
    return CUDA_SUCCESS;
}

/* Takes packed arguments only (CU_LAUNCH_PARAM_BUFFER_POINTER), as PyCUDA gives them. */
CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,
                        unsigned int block_y, unsigned int block_z, unsigned int shared, CUstream stream, void **arguments,
                        void **extra) {
    NEEDS_CONTEXT;
    Queue queue;
    OR_RETURN(queue_of(stream, &queue));
    REQUIRE(grid_x && block_x && block_x <= MAX_THREADS, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(grid_y == 1 && grid_z == 1 && block_y == 1 && block_z == 1 && !shared, CUDA_ERROR_NOT_SUPPORTED);
    REQUIRE(!arguments && extra, CUDA_ERROR_NOT_SUPPORTED);
    const void *packed = NULL;
    size_t size = 0;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) packed = extra[1];
        else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *(const size_t *)extra[1];
        else return CUDA_ERROR_INVALID_VALUE;
    }
    REQUIRE(packed && size, CUDA_ERROR_INVALID_VALUE);
    Operation launch = {.kind = LAUNCH, .kernel = function, .size = size, .grid = grid_x, .block = block_x};
    launch.staged = malloc(size);
    memcpy(launch.staged, packed, size);
    ask_for(queue, launch);
    return CUDA_SUCCESS;
}

/* ---- finding functions ---- */

/* How cuda-python finds functions: by a name without a version. It gets the newest that cuda.h has, a refusal for instance,
 * whatever version it asks for. */
CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags,
                          CUdriverProcAddressQueryResult *status) {
    (void)version, (void)flags;
    *function = NULL;
    Dl_info here;
    void *library = dladdr(&driver_mutex, &here) ? dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    REQUIRE(library, CUDA_ERROR_NOT_FOUND);
    static const char *const versions[] = {"_v3", "_v2", ""};
    for (size_t each = 0; each < sizeof versions / sizeof *versions && !*function; each++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", symbol, versions[each]);
        *function = dlsym(library, name);
    }
    dlclose(library);
    if (status) *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* ---- for tests ---- */

uint64_t simulated_cuda_launches(void) {
    LOCKED;
    return launches;
}

uint64_t simulated_cuda_modules(void) {
    LOCKED;
    uint64_t count = 0;
    for (CUmodule each = modules; each; each = each->next) count++;
    return count;
}

void simulated_cuda_counts(Counts *now) {
    LOCKED;
    *now = counts;
    now->live_bytes = live_bytes();
    now->live_allocations = block_count(device_blocks);
    now->pinned_allocations = block_count(pinned_blocks);
    for (CUstream each = streams; each; each = each->next) now->streams++;
    for (CUevent each = events; each; each = each->next) now->events++;
    now->primary_retained = primary.retained;
    now->contexts_on_this_thread = (uint64_t)context_depth;
    for (const Operation *each = operations; each; each = each->next) now->pending_copies += each->kind != WAIT;
}

bool simulated_cuda_is_device(CUdeviceptr pointer, size_t size) {
    LOCKED;
    return block_around(device_blocks, address(pointer), size);
}

/* After this many more allocations each one fails; NEVER (-1) ends that. */
void simulated_cuda_fail_allocation_after(long count) {
    LOCKED;
    allocations_until_failure = count < 0 ? NEVER : count;
}

void simulated_cuda_set_capacity(size_t bytes) {
    LOCKED;
    capacity = bytes;
}

/* Back to an untroubled device. What is alive, queued or current stays so: only its owner can let it go. */
void simulated_cuda_reset(void) {
    LOCKED;
    capacity = capacity_from_environment();
    allocations_until_failure = NEVER;
    counts.peak_bytes = live_bytes();
    counts.pageable_async_copies = counts.lost_copies = counts.abandoned_allocations = counts.refused_calls = 0;
    last_refused[0] = '\0';
}

/* The generated functions end here. */
CUresult simulated_cuda_refuse(const char *name) {
    LOCKED;
    counts.refused_calls++;
    snprintf(last_refused, sizeof last_refused, "%s", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}

const char *simulated_cuda_last_refused(void) { return last_refused; }
