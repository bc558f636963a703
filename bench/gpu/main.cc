// Times training steps of the reference network on a GPU and prints one JSON line.
//
//   persia_gpu_bench [--rows N] [--seconds S] [--precision bf16|tf32|fp32]
//
// Each step copies a batch from pinned memory of the host and its embedding gradients back, as training does; as many
// steps are in flight as the backend takes. bench/peers/ffnn_gpu.py runs it beside PyTorch.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/rng.h"
#include "dense/cuda_backend.h"

namespace persia {
namespace {

struct Options {
  uint32_t rows = 4096;
  double seconds = 1.0;
  CudaPrecision precision = CudaPrecision::kBf16;
};

struct Buffers {
  float *input, *labels, *embedding_gradient;
};

DenseModelConfig Reference() {
  DenseModelConfig config;
  config.embedding_width = 416;
  config.dense_count = 13;
  config.hidden = {4096, 2048, 1024, 512, 256};
  config.tasks = {{"click", Loss::kBce, 1.0f}};
  return config;
}

int Fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}

bool Parse(int count, char** arguments, Options* options) {
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i], value = arguments[i + 1];
    if (name == "--rows") {
      options->rows = static_cast<uint32_t>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (name == "--seconds") {
      options->seconds = std::strtod(value.c_str(), nullptr);
    } else if (name == "--precision" && (value == "bf16" || value == "tf32" || value == "fp32")) {
      options->precision = value == "bf16"   ? CudaPrecision::kBf16
                           : value == "tf32" ? CudaPrecision::kTf32
                                             : CudaPrecision::kFp32;
    } else {
      return false;
    }
  }
  return count % 2 == 1 && options->rows > 0 && options->seconds > 0;
}

Buffers MakeBuffers(DenseModel& model, uint32_t rows, uint64_t key) {
  const DenseModelConfig& config = model.config();
  const auto take = [&](size_t count) { return static_cast<float*>(model.AllocateHost(count * sizeof(float))); };
  Buffers buffers{take(size_t{rows} * config.input_width()), take(rows), take(size_t{rows} * config.embedding_width)};
  PERSIA_CHECK(buffers.input != nullptr && buffers.labels != nullptr && buffers.embedding_gradient != nullptr);
  Rng rng(key);
  for (size_t i = 0; i < size_t{rows} * config.input_width(); ++i) buffers.input[i] = static_cast<float>(rng.Normal());
  for (uint32_t i = 0; i < rows; ++i) buffers.labels[i] = rng.Uniform() < 0.5 ? 0.0f : 1.0f;
  return buffers;
}

// Keeps `in_flight` steps going for `count` steps.
Status Train(DenseModel& model, const std::vector<Buffers>& buffers, uint32_t rows, uint64_t count, uint64_t* step) {
  const size_t in_flight = buffers.size();
  std::vector<DenseStep> steps(in_flight);
  for (uint64_t i = 0; i < count + in_flight; ++i) {
    DenseStep& slot = steps[i % in_flight];
    if (i >= in_flight) PERSIA_RETURN_IF_ERROR(model.FinishStep(&slot));
    if (i >= count) continue;
    const Buffers& b = buffers[i % in_flight];
    slot = {.step = ++*step, .rows = rows, .input = b.input, .labels = b.labels,
            .embedding_gradient = b.embedding_gradient};
    PERSIA_RETURN_IF_ERROR(model.StartStep(&slot));
  }
  return Status::Ok();
}

int Run(const Options& options) {
  auto made = MakeCudaDenseModel(Reference(), {.device = 0, .precision = options.precision, .tune = true});
  if (!made.ok()) return Fail(made.status());
  DenseModel& model = **made;
  std::vector<Buffers> buffers;
  for (uint32_t i = 0; i < model.steps_in_flight(); ++i) buffers.push_back(MakeBuffers(model, options.rows, i));

  uint64_t step = 0, timed = 0;
  if (Status warm = Train(model, buffers, options.rows, 20, &step); !warm.ok()) return Fail(warm);
  const auto begin = std::chrono::steady_clock::now();
  double seconds = 0;
  while (seconds < options.seconds) {
    if (Status trained = Train(model, buffers, options.rows, 50, &step); !trained.ok()) return Fail(trained);
    timed += 50;
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  std::printf("{\"rows\":%u,\"ms\":%.5f,\"steps\":%llu,\"skipped\":%llu}\n", options.rows,
              seconds * 1e3 / static_cast<double>(timed), static_cast<unsigned long long>(timed),
              static_cast<unsigned long long>(model.skipped_steps()));
  for (const Buffers& b : buffers) {
    for (float* memory : {b.input, b.labels, b.embedding_gradient}) model.FreeHost(memory);
  }
  return 0;
}

}  // namespace
}  // namespace persia

int main(int count, char** arguments) {
  persia::Options options;
  if (!persia::Parse(count, arguments, &options)) {
    std::fprintf(stderr, "usage: persia_gpu_bench [--rows N] [--seconds S] [--precision bf16|tf32|fp32]\n");
    return 2;
  }
  return persia::Run(options);
}
