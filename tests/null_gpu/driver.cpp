// NVIDIA's driver, libcuda.so.1, as far as PyTorch looks for it: it is there, and everything succeeds.

#define SUCCEEDS(name) extern "C" int name(...) { return 0; }

SUCCEEDS(cuInit) SUCCEEDS(cuCtxGetCurrent) SUCCEEDS(cuCtxSetCurrent) SUCCEEDS(cuDeviceGet) SUCCEEDS(cuDeviceGetAttribute)
SUCCEEDS(cuDeviceGetCount) SUCCEEDS(cuDevicePrimaryCtxGetState) SUCCEEDS(cuDevicePrimaryCtxRetain)
SUCCEEDS(cuFuncGetAttribute) SUCCEEDS(cuFuncSetAttribute) SUCCEEDS(cuFuncSetCacheConfig) SUCCEEDS(cuGetErrorName)
SUCCEEDS(cuGetErrorString) SUCCEEDS(cuGetProcAddress_v2) SUCCEEDS(cuLaunchCooperativeKernel) SUCCEEDS(cuLaunchKernel)
SUCCEEDS(cuLinkAddData_v2) SUCCEEDS(cuLinkComplete) SUCCEEDS(cuLinkCreate_v2) SUCCEEDS(cuModuleGetFunction)
SUCCEEDS(cuModuleLoad) SUCCEEDS(cuModuleLoadData) SUCCEEDS(cuModuleLoadDataEx) SUCCEEDS(cuModuleUnload)
SUCCEEDS(cuOccupancyMaxActiveBlocksPerMultiprocessor) SUCCEEDS(cuPointerGetAttribute) SUCCEEDS(cuStreamWriteValue32_v2)
SUCCEEDS(cuTensorMapEncodeTiled)

extern "C" int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
