#include "net/rpc_session.h"

#include <array>
#include <utility>

#include <sys/random.h>

#include "net/wire.h"

namespace persia {
namespace {

constexpr size_t kMostMessageBytes = 4096, kMostTextBytes = 512, kMostDetails = 32;
constexpr size_t kMostSecretTextBytes = 256;

constexpr std::array kCodes = {
#define PERSIA_ERROR(name, text, retryable, exit_code, meaning) ErrorCode::name,
#include "base/error_codes.def"
#undef PERSIA_ERROR
};

std::string_view Cut(std::string_view text, size_t most) { return text.substr(0, most); }

}  // namespace

Buffer EncodeHello(const RpcHello& hello) {
  WireWriter writer;
  writer.Value(hello.protocol);
  writer.Value(hello.session);
  writer.Value(hello.client_id);
  writer.Text(hello.secret);
  return writer.Take();
}

Result<RpcHello> DecodeHello(Bytes bytes) {
  WireReader reader(bytes);
  RpcHello hello;
  hello.protocol = reader.Value<uint32_t>();
  if (hello.protocol != kRpcProtocol && reader.status().ok()) return hello;  // the rest may look different
  hello.session = reader.Value<uint64_t>();
  hello.client_id = reader.Value<uint64_t>();
  hello.secret = reader.Text(kMostSecretTextBytes);
  PERSIA_RETURN_IF_ERROR(reader.End());
  return hello;
}

Buffer EncodeWelcome(uint64_t incarnation) {
  WireWriter writer;
  writer.Value(incarnation);
  return writer.Take();
}

Result<uint64_t> DecodeWelcome(Bytes bytes) {
  WireReader reader(bytes);
  const auto incarnation = reader.Value<uint64_t>();
  PERSIA_RETURN_IF_ERROR(reader.End());
  return incarnation;
}

Buffer EncodeStatus(const Status& status) {
  WireWriter writer;
  writer.Text(ErrorCodeName(status.code()));
  writer.Text(Cut(status.message(), kMostMessageBytes));
  const size_t count = std::min(status.details().size(), kMostDetails);
  writer.Value(static_cast<uint32_t>(count));
  for (size_t i = 0; i < count; ++i) {
    writer.Text(Cut(status.details()[i].first, kMostTextBytes));
    writer.Text(Cut(status.details()[i].second, kMostTextBytes));
  }
  return writer.Take();
}

Status DecodeStatus(Bytes bytes) {
  WireReader reader(bytes);
  const std::string name = reader.Text(kMostTextBytes);
  std::string message = reader.Text(kMostMessageBytes);
  const auto count = reader.Value<uint32_t>();
  if (count > kMostDetails) reader.Fail("has a status with too many details");
  std::vector<std::pair<std::string, std::string>> details;
  for (uint32_t i = 0; i < count && reader.status().ok(); ++i) {
    std::string key = reader.Text(kMostTextBytes);
    details.emplace_back(std::move(key), reader.Text(kMostTextBytes));
  }
  PERSIA_RETURN_IF_ERROR(reader.End());
  ErrorCode code = ErrorCode::kInternal;
  bool known = false;
  for (const ErrorCode candidate : kCodes) {
    if (name != ErrorCodeName(candidate)) continue;
    code = candidate;
    known = true;
  }
  if (!known) message = name + ": " + message;
  Status status(code, std::move(message));
  for (auto& [key, value] : details) static_cast<void>(std::move(status).With(std::move(key), std::move(value)));
  return status;
}

bool SameSecret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char different = 0;
  for (size_t i = 0; i < a.size(); ++i) different = static_cast<unsigned char>(different | (a[i] ^ b[i]));
  return different == 0;
}

uint64_t RandomNumber() {
  uint64_t number = 0;
  while (number == 0) PERSIA_CHECK(getrandom(&number, sizeof(number), 0) == sizeof(number));
  return number;
}

}  // namespace persia
