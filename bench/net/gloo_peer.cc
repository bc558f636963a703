#include "gloo_peer.h"

#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

namespace persia::bench {

struct GlooRing::Parts {
  explicit Parts(uint32_t rank, uint32_t ranks, const std::string& folder)
      : store(folder), context(std::make_shared<gloo::rendezvous::Context>(static_cast<int>(rank), static_cast<int>(ranks))) {
    gloo::transport::tcp::attr attributes;
    attributes.iface = "lo";
    device = gloo::transport::tcp::CreateDevice(attributes);
    context->connectFullMesh(store, device);
  }

  gloo::rendezvous::FileStore store;
  std::shared_ptr<gloo::transport::Device> device;
  std::shared_ptr<gloo::rendezvous::Context> context;
};

GlooRing::GlooRing(uint32_t rank, uint32_t ranks, const std::string& folder)
    : parts_(std::make_unique<Parts>(rank, ranks, folder)) {}

GlooRing::~GlooRing() = default;

void GlooRing::Sum(float* values, size_t count) {
  gloo::AllreduceOptions options(parts_->context);
  options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
  options.setOutput(values, count);
  void (*sum)(void*, const void*, const void*, size_t) = &gloo::sum<float>;
  options.setReduceFunction(sum);
  gloo::allreduce(options);
}

}  // namespace persia::bench
