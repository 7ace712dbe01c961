// What this GPU can do at best, for docs/gpu.md's fractions: bytes read per second by a kernel that only reads, and
// cuBLAS's rate on the matrices of a prompt. Random data: zeros run faster. Prints one JSON object.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <cublas_v2.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define CHECK(call)                                                              \
    do {                                                                         \
        const int rc = (int)(call);                                              \
        if (rc != 0) {                                                           \
            std::fprintf(stderr, "limits: %s: error %d\n", #call, rc);           \
            std::exit(1);                                                        \
        }                                                                        \
    } while (0)

__global__ void fill(uint32_t *p, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint32_t x = (uint32_t)i * 2654435761u;
        x ^= x >> 15;
        x *= 2246822519u;
        p[i] = (x & 0x83ff83ffu) | 0x38003800u; // pairs of halves of a size near 1
    }
}

__global__ void read_all(const uint4 *p, size_t n, uint32_t *sink)
{
    uint32_t sum = 0;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        const uint4 a = p[i], b = p[i + step], c = p[i + 2 * step], d = p[i + 3 * step];
        sum += a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
    }
    for (; i < n; i += step)
        sum += p[i].x ^ p[i].y ^ p[i].z ^ p[i].w;
    if (sum == 0x12345678)
        *sink = sum;
}

// Median milliseconds of one call.
template <typename F> static double median_ms(F call)
{
    enum { WARM = 3, RUNS = 15 };
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    std::vector<float> ms;
    for (int i = 0; i < WARM + RUNS; i++) {
        float t = 0;
        CHECK(cudaEventRecord(begin));
        call();
        CHECK(cudaEventRecord(end));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaEventElapsedTime(&t, begin, end));
        if (i >= WARM)
            ms.push_back(t);
    }
    CHECK(cudaGetLastError());
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
}

int main()
{
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    const size_t bytes = (size_t)4 << 30;
    uint32_t *memory, *sink;
    CHECK(cudaMalloc(&memory, bytes));
    CHECK(cudaMalloc(&sink, sizeof *sink));
    fill<<<device.multiProcessorCount * 8, 256>>>(memory, bytes / 4);
    CHECK(cudaDeviceSynchronize());
    const double read = median_ms(
        [&] { read_all<<<device.multiProcessorCount * 8, 512>>>((const uint4 *)memory, bytes / 16, sink); });
    std::printf("{\"gpu\": \"%s\", \"read_gb_s\": %.1f", device.name, (double)bytes / read * 1e-6);
    cublasHandle_t handle;
    CHECK(cublasCreate(&handle));
    static const int shapes[][2] = {{12288, 4096}, {4096, 4096}, {22016, 4096}, {4096, 11008}};
    for (int tokens : {512, 4096}) {
        double flops = 0, ms = 0;
        for (const auto &s : shapes) {
            const __half *w = (const __half *)memory, *x = w + (size_t)22016 * 11008;
            float *y = (float *)(memory + ((size_t)3 << 28));
            const float one = 1, zero = 0;
            ms += median_ms([&] {
                CHECK(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, s[0], tokens, s[1], &one, w, CUDA_R_16F, s[1], x,
                                   CUDA_R_16F, s[1], &zero, y, CUDA_R_32F, s[0], CUBLAS_COMPUTE_32F,
                                   CUBLAS_GEMM_DEFAULT));
            });
            flops += 2.0 * s[0] * s[1] * tokens;
        }
        std::printf(", \"cublas_f16_tflops_%d\": %.1f", tokens, flops / ms * 1e-9);
    }
    std::printf("}\n");
    return 0;
}
