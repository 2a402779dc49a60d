/* A CUDA runtime without a device: one H100 by its properties, memory of the host, streams and events that do nothing, no
   kernels. It stands before libcudart by LD_PRELOAD. What torch asks of a runtime and is not here, or a real launch of a
   kernel, is an error. */
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define OK return cudaSuccess
#define GiB (1ull << 30)
#undef cudaGetDeviceProperties

/* the device */
cudaError_t cudaGetDeviceCount(int *n) { *n = 1; OK; }
cudaError_t cudaGetDevice(int *d) { *d = 0; OK; }
cudaError_t cudaSetDevice(int d) { OK; }
cudaError_t cudaDriverGetVersion(int *v) { *v = CUDART_VERSION; OK; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = CUDART_VERSION; OK; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "no device (H100)");
    p->major = 9; p->minor = 0; p->multiProcessorCount = 132; p->warpSize = 32; p->totalGlobalMem = 80 * GiB;
    p->maxThreadsPerBlock = 1024; p->maxThreadsPerMultiProcessor = 2048; p->regsPerMultiprocessor = 65536;
    p->sharedMemPerBlock = 48 << 10; p->sharedMemPerBlockOptin = 227 << 10; p->sharedMemPerMultiprocessor = 228 << 10;
    p->l2CacheSize = 50 << 20;
    p->maxGridSize[0] = 2147483647; p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    OK;
}
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
    switch (a) {
        case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
        case cudaDevAttrMultiProcessorCount: *v = 132; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 227 << 10; break;
        default: *v = 0;
    }
    OK;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; OK; }
cudaError_t cudaDeviceSynchronize(void) { OK; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; OK; }
cudaError_t cudaGetLastError(void) { OK; }
cudaError_t cudaPeekAtLastError(void) { OK; }
const char *cudaGetErrorString(cudaError_t e) { return "no device: a kernel or a call that the rehearsal does not have"; }

/* memory: the host's; what is pinned is remembered, for torch asks */
#define BLOCKS 4096
static struct { char *start; size_t size; } pinned[BLOCKS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *taken(size_t n) { return aligned_alloc(512, (n + 511) & ~511ull); }
static cudaError_t noted(void *p, size_t n) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < BLOCKS && pinned[i].start) i++;
    if (i < BLOCKS) { pinned[i].start = p; pinned[i].size = n; }
    pthread_mutex_unlock(&lock);
    return i < BLOCKS ? cudaSuccess : cudaErrorMemoryAllocation;
}
static void forgotten(const void *p) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BLOCKS; i++) if (pinned[i].start == p) pinned[i].start = NULL;
    pthread_mutex_unlock(&lock);
}
cudaError_t cudaMalloc(void **p, size_t n) { *p = taken(n); return *p ? cudaSuccess : cudaErrorMemoryAllocation; }
cudaError_t cudaFree(void *p) { free(p); OK; }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) {
    *p = taken(n);
    return *p ? noted(*p, n) : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *p) { forgotten(p); free(p); OK; }
cudaError_t cudaHostRegister(void *p, size_t n, unsigned f) { return noted(p, n); }
cudaError_t cudaHostUnregister(void *p) { forgotten(p); OK; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->type = cudaMemoryTypeUnregistered;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BLOCKS; i++)
        if (pinned[i].start && (char *)p >= pinned[i].start && (char *)p < pinned[i].start + pinned[i].size)
            a->type = cudaMemoryTypeHost;
    pthread_mutex_unlock(&lock);
    OK;
}
cudaError_t cudaMemGetInfo(size_t *f, size_t *t) { *f = 79 * GiB; *t = 80 * GiB; OK; }
cudaError_t cudaMemcpy(void *d, const void *s, size_t n, enum cudaMemcpyKind k) { memcpy(d, s, n); OK; }
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, enum cudaMemcpyKind k, cudaStream_t t) { memcpy(d, s, n); OK; }
cudaError_t cudaMemset(void *d, int v, size_t n) { memset(d, v, n); OK; }
cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t t) { memset(d, v, n); OK; }

/* streams and events: whatever is asked for is done already */
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int p) { *s = malloc(8); OK; }
cudaError_t cudaStreamDestroy(cudaStream_t s) { free(s); OK; }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { OK; }
cudaError_t cudaStreamQuery(cudaStream_t s) { OK; }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) { OK; }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = cudaStreamCaptureStatusNone; OK; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *c, unsigned long long *i, cudaGraph_t *g,
                                     const cudaGraphNode_t **d, const cudaGraphEdgeData **e, size_t *n) {
    *c = cudaStreamCaptureStatusNone;
    OK;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *m) { OK; }
cudaError_t cudaEventCreate(cudaEvent_t *e) { *e = malloc(8); OK; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { *e = malloc(8); OK; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { free(e); OK; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { OK; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) { OK; }
cudaError_t cudaEventQuery(cudaEvent_t e) { OK; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { OK; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 1; OK; }

/* kernels: there are none */
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return cudaErrorNotSupported; }
