// cuBLAS and cuDNN as far as PyTorch calls them: each computation is one kernel, which computes nothing.
//
// Convolutions are not here: PyTorch asks cuDNN for plans that need a device. `null_gpu.py` has stand-ins for them.

#include <cstdlib>
#include <cstring>
#include <string>

extern "C" void null_gpu_note(const char* line);

#define EXPORT extern "C" __attribute__((visibility("default")))
#define SUCCEEDS(name) EXPORT int name(...) { return 0; }
#define COMPUTES(name) EXPORT int name(...) { null_gpu_note("kernel " #name); return 0; }
#define MAKES(name) EXPORT int name(void** made, ...) { *made = calloc(1, 512); return 0; }

MAKES(cublasCreate_v2) SUCCEEDS(cublasDestroy_v2) SUCCEEDS(cublasSetStream_v2) SUCCEEDS(cublasSetWorkspace_v2)
SUCCEEDS(cublasSetMathMode) SUCCEEDS(cublasSetPointerMode_v2) SUCCEEDS(cublasSetSmCountTarget)
EXPORT int cublasGetMathMode(void*, int* found) { *found = 0; return 0; }
EXPORT int cublasGetPointerMode_v2(void*, int* found) { *found = 0; return 0; }
COMPUTES(cublasSgemm_v2) COMPUTES(cublasDgemm_v2) COMPUTES(cublasGemmEx) COMPUTES(cublasSgemmEx)
COMPUTES(cublasGemmStridedBatchedEx) COMPUTES(cublasSgemmStridedBatched) COMPUTES(cublasDgemmStridedBatched)
COMPUTES(cublasSgemv_v2) COMPUTES(cublasDgemv_v2) COMPUTES(cublasSdot_v2) COMPUTES(cublasDotEx)

EXPORT size_t cublasLtGetVersion() { return 130000; }
COMPUTES(cublasLtMatmul)
SUCCEEDS(cublasLtMatmulAlgoCheck) SUCCEEDS(cublasLtMatmulAlgoInit)
SUCCEEDS(cublasLtMatmulDescDestroy) SUCCEEDS(cublasLtMatmulDescSetAttribute)
SUCCEEDS(cublasLtMatmulPreferenceDestroy) SUCCEEDS(cublasLtMatmulPreferenceSetAttribute)
SUCCEEDS(cublasLtMatrixLayoutDestroy) SUCCEEDS(cublasLtMatrixLayoutSetAttribute)
MAKES(cublasLtMatmulDescCreate) MAKES(cublasLtMatmulPreferenceCreate) MAKES(cublasLtMatrixLayoutCreate)
EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, char* result, int* count) {
  memset(result, 0, 88);
  *count = 1;
  return 0;
}

EXPORT size_t cudnnGetVersion() { return 92400; }
EXPORT size_t cudnnGetCudartVersion() { return 13000; }
EXPORT const char* cudnnGetErrorString(int) { return "an error of the null GPU"; }
EXPORT void cudnnGetLastErrorString(char* text, size_t) { *text = 0; }
MAKES(cudnnCreate) SUCCEEDS(cudnnSetStream)
EXPORT int cudnnGetStream(void*, void** found) { *found = nullptr; return 0; }
MAKES(cudnnCreateTensorDescriptor) MAKES(cudnnCreateFilterDescriptor) MAKES(cudnnCreateActivationDescriptor)
MAKES(cudnnCreateDropoutDescriptor) MAKES(cudnnCreatePoolingDescriptor)
SUCCEEDS(cudnnDestroyTensorDescriptor) SUCCEEDS(cudnnDestroyFilterDescriptor) SUCCEEDS(cudnnDestroyActivationDescriptor)
SUCCEEDS(cudnnDestroyDropoutDescriptor) SUCCEEDS(cudnnSetTensorNdDescriptor) SUCCEEDS(cudnnSetFilterNdDescriptor)
SUCCEEDS(cudnnSetActivationDescriptor) SUCCEEDS(cudnnSetDropoutDescriptor)
COMPUTES(cudnnBatchNormalizationForwardTrainingEx) COMPUTES(cudnnBatchNormalizationBackwardEx)
COMPUTES(cudnnBatchNormalizationForwardInference) COMPUTES(cudnnPoolingForward)
EXPORT int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void*, int, int, void*, void*, void*, void*, void*, size_t* found) {
  *found = 64;
  return 0;
}
EXPORT int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    void*, int, int, void*, void*, void*, void*, void*, void*, void*, size_t* found) {
  *found = 64;
  return 0;
}
EXPORT int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void*, int, int, void*, void*, size_t* found) {
  *found = 64;
  return 0;
}
