// A CUDA runtime that computes nothing: PyTorch's own CUDA backend runs on it, on a machine without a GPU.
//
// It is loaded before NVIDIA's libraries (LD_PRELOAD) and answers in their place. There are two devices, whose memory is
// the machine's. Copies are made; kernels are not run, so that what they would have written is whatever lies there. Each
// launch, copy and wait is noted, as a line of text, while recording is on:
//
//     kernel NAME        copy FROM>TO BYTES, with "pageable" where host memory is not pinned
//     set BYTES          wait device | stream | event, with the number of the device that the thread is on
//     event record       stream waits for event              capture begin | end        graph launch
//
// The runtime first, then what PyTorch calls of cuBLAS and cuDNN.

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include <driver_types.h>
#include <vector_types.h>

#define EXPORT extern "C" __attribute__((visibility("default")))
#define SUCCEEDS(name) EXPORT cudaError_t name(...) { return cudaSuccess; }
#define REFUSES(name) EXPORT cudaError_t name(...) { return cudaErrorNotSupported; }

namespace {

constexpr int NUM_DEVICES = 2;
constexpr int VERSION = 13000;
std::recursive_mutex mutex;
bool is_recording = false;
thread_local int device = 0;
bool is_capturing = false;  // of all threads: the backward pass is computed by another one
long last_handle = 4096;  // of streams

// Functions rather than objects: libraries call in before this one's objects are made, and after they are gone.
std::vector<std::string>& lines() { static auto* it = new std::vector<std::string>; return *it; }
std::unordered_map<const void*, std::string>& kernels() { static auto* it = new std::unordered_map<const void*, std::string>; return *it; }

struct Blocks {
  std::map<const char*, size_t> sizes;
  void add(const void* start, size_t size) { sizes[static_cast<const char*>(start)] = size; }
  void remove(const void* start) { sizes.erase(static_cast<const char*>(start)); }
  bool has(const void* at) const {
    auto next = sizes.upper_bound(static_cast<const char*>(at));
    if (next == sizes.begin()) return false;
    auto block = std::prev(next);
    return static_cast<const char*>(at) < block->first + block->second;
  }
};
Blocks& on_device() { static auto* it = new Blocks; return *it; }
Blocks& pinned() { static auto* it = new Blocks; return *it; }

void note(const std::string& line) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  if (is_recording) lines().push_back(line);
}

cudaError_t wait(const char* what) {
  note(std::string("wait ") + what + " " + std::to_string(device));
  return is_capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t launch(const void* function) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  auto found = kernels().find(function);
  note("kernel " + (found == kernels().end() ? std::string("?") : found->second));
  return cudaSuccess;
}

cudaError_t copy(void* to, const void* from, size_t size) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  auto place = [](const void* at) { return on_device().has(at) ? "device" : pinned().has(at) ? "host" : "pageable"; };
  note(std::string("copy ") + place(from) + ">" + place(to) + " " + std::to_string(size));
  memmove(to, from, size);
  return cudaSuccess;
}

cudaError_t set(void* at, int value, size_t size) {
  note("set " + std::to_string(size));
  memset(at, value, size);
  return cudaSuccess;
}

void* handle() { return reinterpret_cast<void*>(last_handle += 16); }

}  // namespace

// What the tests call.

EXPORT void null_gpu_record(int on) { lines().clear(); is_recording = on; }
EXPORT size_t null_gpu_count() { return lines().size(); }
EXPORT const char* null_gpu_line(size_t number) { return lines()[number].c_str(); }
EXPORT void null_gpu_note(const char* line) { note(line); }

// Kernels

EXPORT void** __cudaRegisterFatBinary(void*) { return static_cast<void**>(calloc(1, 64)); }
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT char __cudaInitModule(void**) { return 1; }
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, void*, void*, void*, void*, int*) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  kernels()[function] = name;
}
struct Configuration { dim3 grid, block; size_t shared; void* stream; };
static thread_local std::vector<Configuration> configurations;
EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  Configuration latest = configurations.back();
  configurations.pop_back();
  *grid = latest.grid, *block = latest.block, *shared = latest.shared, *static_cast<void**>(stream) = latest.stream;
  return cudaSuccess;
}
EXPORT cudaError_t __cudaGetKernel(const void** kernel, const void* function) { *kernel = function; return cudaSuccess; }
EXPORT cudaError_t __cudaLaunchKernel(const void* kernel, dim3, dim3, void**, size_t, void*) { return launch(kernel); }
EXPORT cudaError_t cudaLaunchKernel(const void* function, dim3, dim3, void**, size_t, void*) { return launch(function); }
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* function, void**) { return launch(function); }
EXPORT cudaError_t cudaLaunchHostFunc(void*, void (*function)(void*), void* data) { function(data); return cudaSuccess; }
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
  memset(found, 0, sizeof *found);
  found->maxThreadsPerBlock = 1024, found->numRegs = 32, found->ptxVersion = found->binaryVersion = 90;
  found->maxDynamicSharedSizeBytes = 49152;
  return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* found, const void*, int threads, size_t, unsigned) {
  *found = threads ? 2048 / threads : 8;
  return cudaSuccess;
}
EXPORT cudaError_t cudaLibraryGetKernel(const void** kernel, void*, const char* name) { *kernel = name; return cudaSuccess; }
EXPORT cudaError_t cudaLibraryLoadData(void** library, ...) { *library = handle(); return cudaSuccess; }
SUCCEEDS(cudaLibraryUnload) SUCCEEDS(cudaFuncSetAttribute) SUCCEEDS(cudaKernelSetAttributeForDevice)

// Devices

EXPORT cudaError_t cudaGetDeviceCount(int* found) { *found = NUM_DEVICES; return cudaSuccess; }
EXPORT cudaError_t cudaGetDevice(int* found) { *found = device; return cudaSuccess; }
EXPORT cudaError_t cudaSetDevice(int wanted) {
  if (wanted < 0 || wanted >= NUM_DEVICES) return cudaErrorInvalidDevice;
  device = wanted;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDriverGetVersion(int* found) { *found = VERSION; return cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int* found) { *found = VERSION; return cudaSuccess; }
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {  // of an H200
  memset(found, 0, sizeof *found);
  strcpy(found->name, "null GPU");
  found->totalGlobalMem = 141ull << 30, found->sharedMemPerBlock = 49152, found->regsPerBlock = 65536;
  found->warpSize = 32, found->memPitch = 2147483647, found->maxThreadsPerBlock = 1024;
  found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024, found->maxThreadsDim[2] = 64;
  found->maxGridSize[0] = 2147483647, found->maxGridSize[1] = found->maxGridSize[2] = 65535;
  found->totalConstMem = 65536, found->major = 9, found->minor = 0, found->textureAlignment = 512;
  found->multiProcessorCount = 132, found->l2CacheSize = 60 << 20, found->maxThreadsPerMultiProcessor = 2048;
  found->sharedMemPerMultiprocessor = 233472, found->regsPerMultiprocessor = 65536;
  found->sharedMemPerBlockOptin = 232448, found->maxBlocksPerMultiProcessor = 32, found->concurrentKernels = 1;
  found->unifiedAddressing = 1, found->cooperativeLaunch = 1, found->managedMemory = 1, found->canMapHostMemory = 1;
  found->asyncEngineCount = 3, found->memoryPoolsSupported = 1, found->clusterLaunch = 1;
  found->streamPrioritiesSupported = 1;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetAttribute(int* found, cudaDeviceAttr which, int) {
  static const std::map<int, int> known = {
      {cudaDevAttrMaxThreadsPerBlock, 1024}, {cudaDevAttrMaxGridDimX, 2147483647}, {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535}, {cudaDevAttrMaxSharedMemoryPerBlock, 49152}, {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxRegistersPerBlock, 65536}, {cudaDevAttrMultiProcessorCount, 132},
      {cudaDevAttrMaxThreadsPerMultiProcessor, 2048}, {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrComputeCapabilityMinor, 0}, {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
      {cudaDevAttrMaxRegistersPerMultiprocessor, 65536}, {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
      {cudaDevAttrMaxBlocksPerMultiprocessor, 32}, {cudaDevAttrL2CacheSize, 60 << 20}};
  auto value = known.find(which);
  *found = value == known.end() ? 1 : value->second;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceCanAccessPeer(int* found, int, int) { *found = 0; return cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetPCIBusId(char* found, int size, int) { strncpy(found, "0000:00:00.0", size); return cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { *least = 0, *greatest = -5; return cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetDefaultMemPool(void** found, int) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaDeviceSynchronize() { return wait("device"); }
EXPORT const char* cudaGetErrorName(cudaError_t error) { return error == cudaSuccess ? "cudaSuccess" : "an error of the null GPU"; }
EXPORT const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
SUCCEEDS(cudaGetLastError) SUCCEEDS(cudaPeekAtLastError) SUCCEEDS(cudaDeviceEnablePeerAccess)
SUCCEEDS(cudaDeviceGetGraphMemAttribute) SUCCEEDS(cudaDeviceSetGraphMemAttribute)
SUCCEEDS(cudaProfilerStart) SUCCEEDS(cudaProfilerStop)
static int nothing() { return 0; }
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned, unsigned long long, int* status) {
  *function = reinterpret_cast<void*>(nothing);
  if (status) *status = 0;
  return cudaSuccess;
}

// Memory

EXPORT cudaError_t cudaMalloc(void** found, size_t size) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  *found = size ? aligned_alloc(512, (size + 511) / 512 * 512) : nullptr;
  if (size) memset(*found, 0, size), on_device().add(*found, size);
  return cudaSuccess;
}
EXPORT cudaError_t cudaFree(void* at) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  if (at) on_device().remove(at), free(at);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMallocAsync(void** found, size_t size, void*) { return cudaMalloc(found, size); }
EXPORT cudaError_t cudaFreeAsync(void* at, void*) { return cudaFree(at); }
EXPORT cudaError_t cudaHostAlloc(void** found, size_t size, unsigned) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  *found = calloc(1, size + 64);
  pinned().add(*found, size);
  return cudaSuccess;
}
EXPORT cudaError_t cudaFreeHost(void* at) {
  std::lock_guard<std::recursive_mutex> guard(mutex);
  pinned().remove(at), free(at);
  return cudaSuccess;
}
EXPORT cudaError_t cudaHostRegister(void* at, size_t size, unsigned) { pinned().add(at, size); return cudaSuccess; }
EXPORT cudaError_t cudaHostUnregister(void* at) { pinned().remove(at); return cudaSuccess; }
EXPORT cudaError_t cudaMemGetInfo(size_t* unused, size_t* all) { *unused = 138ull << 30, *all = 141ull << 30; return cudaSuccess; }
EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) { wait("copy"); return copy(to, from, size); }
EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, void*) { return copy(to, from, size); }
EXPORT cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, void*) { return copy(to, from, size); }
EXPORT cudaError_t cudaMemset(void* at, int value, size_t size) { return set(at, value, size); }
EXPORT cudaError_t cudaMemsetAsync(void* at, int value, size_t size, void*) { return set(at, value, size); }
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* at) {
  memset(found, 0, sizeof *found);
  found->type = on_device().has(at) ? cudaMemoryTypeDevice : pinned().has(at) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  found->devicePointer = found->hostPointer = const_cast<void*>(at);
  return cudaSuccess;
}
static char symbol[65536];
EXPORT cudaError_t cudaGetSymbolAddress(void** found, const void*) { *found = symbol; return cudaSuccess; }
SUCCEEDS(cudaMemcpy2DAsync) SUCCEEDS(cudaMemcpyToSymbol) SUCCEEDS(cudaMemPoolGetAttribute) SUCCEEDS(cudaMemPoolSetAccess)
SUCCEEDS(cudaMemPoolSetAttribute) SUCCEEDS(cudaMemPoolTrimTo)
REFUSES(cudaIpcCloseMemHandle) REFUSES(cudaIpcGetEventHandle) REFUSES(cudaIpcGetMemHandle) REFUSES(cudaIpcOpenEventHandle)
REFUSES(cudaIpcOpenMemHandle)

// Streams, events, graphs

EXPORT cudaError_t cudaStreamCreate(void** found) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaStreamCreateWithFlags(void** found, unsigned) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaStreamCreateWithPriority(void** found, unsigned, int) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaStreamGetPriority(void*, int* found) { *found = 0; return cudaSuccess; }
EXPORT cudaError_t cudaStreamSynchronize(void*) { return wait("stream"); }
EXPORT cudaError_t cudaStreamIsCapturing(void*, int* found) { *found = is_capturing; return cudaSuccess; }
EXPORT cudaError_t cudaStreamGetCaptureInfo(void*, int* status, unsigned long long* id, void** graph, void*, void*, size_t* count) {
  *status = is_capturing;
  if (id) *id = 1;
  if (graph) *graph = reinterpret_cast<void*>(16);
  if (count) *count = 0;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamBeginCapture(void*, int) { is_capturing = true; note("capture begin"); return cudaSuccess; }
EXPORT cudaError_t cudaStreamEndCapture(void*, void** graph) {
  is_capturing = false, *graph = reinterpret_cast<void*>(16);
  note("capture end");
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventCreate(void** found) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaEventCreateWithFlags(void** found, unsigned) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaEventElapsedTime(float* found, void*, void*) { *found = 1; return cudaSuccess; }
EXPORT cudaError_t cudaEventSynchronize(void*) { return wait("event"); }
EXPORT cudaError_t cudaGraphInstantiateWithFlags(void** found, void*, unsigned long long) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaGraphLaunch(void*, void*) { note("graph launch"); return cudaSuccess; }
EXPORT cudaError_t cudaGraphGetNodes(void*, void**, size_t* count) { *count = 0; return cudaSuccess; }
EXPORT cudaError_t cudaUserObjectCreate(void** found, ...) { *found = handle(); return cudaSuccess; }
EXPORT cudaError_t cudaStreamWaitEvent(...) { note("stream waits for event"); return cudaSuccess; }
EXPORT cudaError_t cudaEventRecord(...) { note("event record"); return cudaSuccess; }
EXPORT cudaError_t cudaEventRecordWithFlags(...) { note("event record"); return cudaSuccess; }
SUCCEEDS(cudaStreamDestroy) SUCCEEDS(cudaStreamQuery) SUCCEEDS(cudaStreamAddCallback)
SUCCEEDS(cudaStreamUpdateCaptureDependencies) SUCCEEDS(cudaThreadExchangeStreamCaptureMode)
SUCCEEDS(cudaEventDestroy) SUCCEEDS(cudaEventQuery)
SUCCEEDS(cudaGraphDestroy) SUCCEEDS(cudaGraphExecDestroy) SUCCEEDS(cudaGraphAddNode) SUCCEEDS(cudaUserObjectRelease)
SUCCEEDS(cudaGraphConditionalHandleCreate) SUCCEEDS(cudaGraphRetainUserObject) SUCCEEDS(cudaGraphNodeGetDependencies)
REFUSES(cudaStreamBeginCaptureToGraph)
