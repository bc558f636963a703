#include "cluster_options.h"

#include <string>
#include <vector>

#include "convert.h"

namespace persia::bindings {
namespace {

template <typename T>
T Named(const Napi::Object& object, const char* name, Result<T> (*parse)(std::string_view)) {
  Result<T> value = parse(String(object, name));
  ThrowIfError(object.Env(), value.status());
  return *value;
}

NetOptions ReadNet(const Napi::Object& net) {
  const auto secret = TypedArray<const uint8_t>(Field(net, "secret"), "secret");
  return {String(net, "host"), Uint32(net, "port"), Named(net, "transport", ParseTransportChoice),
          std::string(secret.begin(), secret.end()), Uint64(net, "deadlineMs")};
}

WireOptions ReadWire(const Napi::Object& wire) {
  const std::string compression = String(wire, "compression");
  Result<IdCodec> codec = ParseIdCodec(compression == "none" ? "raw" : compression);
  ThrowIfError(wire.Env(), codec.status());
  return {{Named(wire, "rows", ParseWireFormat), Named(wire, "gradients", ParseWireFormat), *codec},
          Named(wire, "activations", ParseWireFormat)};
}

std::vector<std::string> Texts(const Napi::Object& object, const char* name) {
  const Napi::Array list = Array(object, name);
  std::vector<std::string> texts;
  for (uint32_t i = 0; i < list.Length(); ++i) texts.push_back(list.Get(i).As<Napi::String>().Utf8Value());
  return texts;
}

}  // namespace

RoleOptions ReadRoleOptions(const Napi::Object& options) {
  const Napi::Object rank = Object(options, "rank");
  return {ReadNet(Object(options, "net")), ReadWire(Object(options, "wire")), Uint32(rank, "rank"),
          Uint32(rank, "size")};
}

ClusterPeers ReadPeers(const Napi::Object& peers) {
  return {Texts(peers, "parameterServers"), Texts(peers, "embeddingWorkers"), Texts(peers, "nnWorkers"),
          Texts(peers, "dataLoaders")};
}

}  // namespace persia::bindings
