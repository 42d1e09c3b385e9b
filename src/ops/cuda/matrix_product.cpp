#include "ops/cuda/matrix_product.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>

#include "base/error.h"

#define STOKER_STRING_OF(x) #x
#define STOKER_STRING(x) STOKER_STRING_OF(x)

namespace stoker::ops::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what cuBLASLt's documentation advises for Hopper

// cuBLASLt's entry points, found at run time.
struct Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtGetStatusString) status_string;

  Library() {
    constexpr char kName[] = "libcublasLt.so." STOKER_STRING(CUBLAS_VER_MAJOR);
    void* library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
    if (!library)
      library = dlopen((std::string(STOKER_CUDA_LIBRARY_DIR) + "/" + kName).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library)
      fail(ErrorKind::kDevice,
           "expected {} of the CUDA toolkit, found none ({}). Install it, or add it to LD_LIBRARY_PATH.",
           kName, dlerror());
    find(library, "cublasLtCreate", create);
    find(library, "cublasLtDestroy", destroy);
    find(library, "cublasLtMatmul", matmul);
    find(library, "cublasLtMatmulDescCreate", desc_create);
    find(library, "cublasLtMatmulDescDestroy", desc_destroy);
    find(library, "cublasLtMatmulDescSetAttribute", desc_set);
    find(library, "cublasLtMatrixLayoutCreate", layout_create);
    find(library, "cublasLtMatrixLayoutDestroy", layout_destroy);
    find(library, "cublasLtMatmulPreferenceCreate", preference_create);
    find(library, "cublasLtMatmulPreferenceDestroy", preference_destroy);
    find(library, "cublasLtMatmulPreferenceSetAttribute", preference_set);
    find(library, "cublasLtMatmulAlgoGetHeuristic", heuristic);
    find(library, "cublasLtGetStatusString", status_string);
  }

  template <typename F>
  static void find(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (!function)
      fail(ErrorKind::kDevice, "expected {} in cuBLASLt, found none. Is its version the build's?", name);
  }
};

const Library& lt() {
  static const Library library;
  return library;
}

void check(cublasStatus_t status, const char* what, const ProductShape& s) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::kDevice, "cuBLASLt: {} failed for {} x {} x {} {}: {}", what, s.m, s.n, s.k,
         to_string(s.in), lt().status_string(status));
}

cudaDataType_t type(Dtype d) { return d == Dtype::kBf16 ? CUDA_R_16BF : CUDA_R_32F; }

int alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  int bytes = 256;
  while (bytes > 1 && address % static_cast<uintptr_t>(bytes) != 0) bytes /= 2;
  return bytes;
}

}  // namespace

// cuBLASLt thinks in columns: a row-major [r,c] is a column-major [c,r]. So c^T = b^T a^T is computed, with b
// first.
struct ProductCache::Plan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  ~Plan() {
    if (desc) lt().desc_destroy(desc);
    for (const cublasLtMatrixLayout_t layout : {first, second, result})
      if (layout) lt().layout_destroy(layout);
  }
};

ProductCache::ProductCache() {
  cublasLtHandle_t handle = nullptr;
  check(lt().create(&handle), "opening", {});
  handle_ = handle;
}

ProductCache::~ProductCache() {
  plans_.clear();
  if (handle_) lt().destroy(static_cast<cublasLtHandle_t>(handle_));
}

const ProductCache::Plan& ProductCache::plan(const ProductShape& s) {
  if (const auto found = plans_.find(s); found != plans_.end()) return *found->second;
  auto plan = std::make_unique<Plan>();
  const auto rows_columns = [&](cublasLtMatrixLayout_t& layout, Dtype d, int64_t stored_rows,
                                int64_t stored_columns) {
    check(lt().layout_create(&layout, type(d), static_cast<uint64_t>(stored_columns),
                             static_cast<uint64_t>(stored_rows), stored_columns),
          "describing a matrix", s);
  };
  rows_columns(plan->first, s.in, s.b_transposed ? s.n : s.k, s.b_transposed ? s.k : s.n);
  rows_columns(plan->second, s.in, s.a_transposed ? s.k : s.m, s.a_transposed ? s.m : s.k);
  rows_columns(plan->result, s.out, s.m, s.n);
  check(lt().desc_create(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product", s);
  const cublasOperation_t first_op = s.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second_op = s.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(lt().desc_set(plan->desc, CUBLASLT_MATMUL_DESC_TRANSA, &first_op, sizeof first_op),
        "describing a product", s);
  check(lt().desc_set(plan->desc, CUBLASLT_MATMUL_DESC_TRANSB, &second_op, sizeof second_op),
        "describing a product", s);

  cublasLtMatmulPreference_t preference = nullptr;
  check(lt().preference_create(&preference), "choosing an algorithm", s);
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, decltype(lt().preference_destroy)> owner(
      preference, lt().preference_destroy);
  const size_t workspace = kWorkspaceBytes;
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  const uint32_t alignment = static_cast<uint32_t>(s.alignment);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
    check(lt().preference_set(preference, what, &value, sizeof value), "choosing an algorithm", s);
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  for (const auto what :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    set(what, alignment);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  check(lt().heuristic(static_cast<cublasLtHandle_t>(handle_), plan->desc, plan->first, plan->second,
                       plan->result, plan->result, preference, 1, &best, &found),
        "choosing an algorithm", s);
  if (found == 0) check(CUBLAS_STATUS_NOT_SUPPORTED, "choosing an algorithm", s);
  plan->algorithm = best.algo;
  return *plans_.emplace(s, std::move(plan)).first->second;
}

void ProductCache::run(Device device, Stream stream, ProductShape shape, const void* a, const void* b,
                       void* c) {
  if (shape.m == 0 || shape.n == 0) return;
  if (workspace_.bytes() == 0 || !(workspace_.device() == device))
    workspace_ = DeviceBuffer(device, kWorkspaceBytes);
  shape.alignment = std::min({alignment_of(a), alignment_of(b), alignment_of(c)});
  const Plan& p = plan(shape);
  const float one = 1, keep = shape.add ? 1 : 0;
  check(lt().matmul(static_cast<cublasLtHandle_t>(handle_), p.desc, &one, b, p.first, a, p.second, &keep, c,
                    p.result, c, p.result, &p.algorithm, workspace_.data(), kWorkspaceBytes,
                    static_cast<cudaStream_t>(stream.handle)),
        "multiplying", shape);
}

}  // namespace stoker::ops::cuda
