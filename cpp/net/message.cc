#include "net/message.h"

#include <bit>
#include <cstring>
#include <string>

#include "base/hash.h"

namespace persia {
namespace {

static_assert(std::endian::native == std::endian::little, "messages are little-endian");

Status Malformed(const std::string& what) { return Status(ErrorCode::kProtocol, "a message " + what); }

uint32_t HeaderChecksum(MessageHeader header) {
  header.header_checksum = 0;
  return static_cast<uint32_t>(Xxh3(&header, sizeof(header)));
}

uint64_t PayloadChecksum(const Payload& payload) {
  if (payload.pieces() == 0) return Xxh3(nullptr, 0);
  if (payload.pieces() == 1) return Xxh3(payload.piece(0).data(), payload.piece(0).size());
  Xxh3Stream stream;
  for (size_t i = 0; i < payload.pieces(); ++i) stream.Update(payload.piece(i).data(), payload.piece(i).size());
  return stream.Digest();
}

bool KnownKind(MessageKind kind) { return kind >= MessageKind::kHello && kind <= MessageKind::kChunk; }

bool KnownFormats(const MessageHeader& header) {
  const WireFlags flags = header.flags();
  return header.formats < 256 && header.zero == 0 && flags.format <= WireFormat::kInt8 && flags.codec <= IdCodec::kZstd;
}

}  // namespace

void SealMessage(const Payload& payload, MessageHeader* header) {
  header->payload_bytes = payload.bytes();
  header->payload_checksum = PayloadChecksum(payload);
  header->header_checksum = HeaderChecksum(*header);
}

Status ParseHeader(Bytes bytes, const MessageLimits& limits, MessageHeader* header) {
  if (bytes.size() != sizeof(*header)) {
    return Malformed("has a header of " + std::to_string(bytes.size()) + " bytes instead of " +
                     std::to_string(sizeof(*header)));
  }
  std::memcpy(header, bytes.data(), sizeof(*header));
  if (header->magic != MessageHeader::kMagic) return Malformed("is not of Persia's protocol");
  if (header->version != MessageHeader::kVersion) {
    return Malformed("is of version " + std::to_string(header->version) + " of the protocol, this is version " +
                     std::to_string(MessageHeader::kVersion) + "; run the same release everywhere");
  }
  if (header->header_checksum != HeaderChecksum(*header)) return Malformed("has a damaged header");
  if (!KnownKind(header->kind) || !KnownFormats(*header)) return Malformed("is of an unknown kind or format");
  if (header->payload_bytes > limits.max_payload_bytes) {
    return Malformed("has " + std::to_string(header->payload_bytes) + " bytes, the limit is " +
                     std::to_string(limits.max_payload_bytes));
  }
  return Status::Ok();
}

Status CheckPayload(const MessageHeader& header, Bytes payload) {
  return CheckPayload(header, payload.size(), Xxh3(payload.data(), payload.size()));
}

Status CheckPayload(const MessageHeader& header, size_t payload_bytes, uint64_t checksum) {
  if (payload_bytes != header.payload_bytes) {
    return Malformed("has " + std::to_string(payload_bytes) + " bytes where its header says " +
                     std::to_string(header.payload_bytes));
  }
  if (checksum != header.payload_checksum) return Malformed("has damaged bytes");
  return Status::Ok();
}

}  // namespace persia
