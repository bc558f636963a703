// Fuzz target of whole services: a parameter server, an embedding worker or an NN worker gets any messages from a peer that
// knows the secret. Each is answered, refused, or waits for others; nothing breaks.
//
// The first byte of an input picks the service, which is made anew for it. Then come messages:
//
//   kind u8 (of MessageKind; half of them are requests) | type u8 (of those that the service has, or any) | formats u8 |
//   id u8 | length u8 | payload
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "net/in_process_transport.h"
#include "net/rpc_session.h"
#include "seeds.h"
#include "small_model.h"
#include "store/parameter_server.h"
#include "store/store_messages.h"
#include "trainer/nn_server.h"
#include "worker/embedding_server.h"

namespace persia {
namespace {

constexpr const char* kSecret = "a secret of more than 16 bytes";
constexpr uint64_t kDeadlineMs = 2'000;
constexpr std::chrono::milliseconds kAnswersWithin{20};  // those that wait for others come later or not at all
constexpr size_t kMostMessages = 12;

TrainerConfig Config() {
  TrainerConfig config = SmallModel();
  config.mode = TrainerMode::kAsync;  // one that has every request
  config.staleness = 2;
  return config;
}

RpcServerOptions Rpc() {
  RpcServerOptions options;
  options.secret = kSecret;
  return options;
}

RoleClientsOptions Clients(const std::string& role, const std::string& address) {
  return {role, {address}, kSecret, 1, kDeadlineMs};
}

// One of each role, as far as they are needed for the last one, which gets the messages.
class Services {
 public:
  enum Kind { kParameterServer, kMergingParameterServer, kEmbeddingWorker, kNnWorker, kKinds };

  explicit Services(Kind kind) {
    const TrainerConfig config = Config();
    StepStore::Options steps = StepOptions(config);
    if (kind == kMergingParameterServer) {
      steps.ranks = 2;
      steps.merges = true;
    }
    const auto ps_transport = MakeTransport("ps");
    ps_ = std::make_unique<ParameterServer>(ps_transport, ParameterServer::Options{config.tables, steps, Rpc()});
    address_ = *ps_->Listen("ps:0");
    if (kind < kEmbeddingWorker) return;
    const auto ew_transport = MakeTransport("ew");
    ew_ = std::make_unique<EmbeddingServer>(
        ew_transport, EmbeddingServer::Options{config.schema, config.tables, 1, false, 4, {}, Rpc()});
    PERSIA_CHECK(ew_->Connect(Clients("parameter server", address_)).ok());
    address_ = *ew_->Listen("ew:0");
    if (kind < kNnWorker) return;
    const auto nn_transport = MakeTransport("nn");
    nn_ = std::make_unique<NnServer>(nn_transport, NnServer::Options{config, 0, WireFormat::kFp32, 10, Rpc()});
    const std::string nn_address = *nn_->Listen("nn:0");
    PERSIA_CHECK(nn_->Connect({Clients("embedding worker", address_), Clients("NN worker", nn_address), nullptr}).ok());
    address_ = nn_address;
  }
  ~Services() {
    nn_.reset();
    ew_.reset();
    ps_.reset();
    for (const auto& transport : transports_) transport->Close();
  }

  std::shared_ptr<Transport> MakeTransport(const std::string& name) {
    transports_.push_back(MakeInProcessTransport(network_, name));
    return transports_.back();
  }
  const std::string& address() const { return address_; }

 private:
  const std::shared_ptr<InProcessNetwork> network_ = MakeInProcessNetwork();
  std::vector<std::shared_ptr<Transport>> transports_;
  std::unique_ptr<ParameterServer> ps_;
  std::unique_ptr<EmbeddingServer> ew_;
  std::unique_ptr<NnServer> nn_;
  std::string address_;
};

// What comes back.
class Answers final : public PeerHandler {
 public:
  void OnMessage(PeerId, const MessageHeader& header, Buffer) override {
    std::lock_guard lock(mutex_);
    answered_.insert(header.request_id);
    changed_.notify_all();
  }
  void OnLost(PeerId, const Status&) override {
    std::lock_guard lock(mutex_);
    lost_ = true;
    changed_.notify_all();
  }

  // Until the requests are answered, the connection is gone, or it takes too long.
  void Wait(const std::set<uint64_t>& requests) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kAnswersWithin, [&] { return lost_ || std::ranges::includes(answered_, requests); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<uint64_t> answered_;
  bool lost_ = false;
};

const std::vector<uint16_t>& TypesOf(Services::Kind kind) {
  static const std::vector<uint16_t> store = {0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106,
                                              0x107, 0x108, 0x109, 0x10a, 0x10b, 0x10c, 0x10d};
  static const std::vector<uint16_t> embeddings = {0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207};
  static const std::vector<uint16_t> nn = {0x300, 0x301, 0x302, 0x303, 0x304, 0x305, 0x310, 0x311,
                                           0x312, 0x313, 0x314, 0x315, 0x316, 0x320, 0x321};
  return kind < Services::kEmbeddingWorker ? store : kind < Services::kNnWorker ? embeddings : nn;
}

// The next message of an input; false at its end.
bool NextMessage(Services::Kind kind, Bytes* input, MessageHeader* header, Bytes* payload) {
  constexpr size_t kHeadBytes = 5;
  if (input->size() < kHeadBytes) return false;
  const auto byte = [&](size_t i) { return std::to_integer<uint8_t>((*input)[i]); };
  header->kind = byte(0) >= 128 ? MessageKind::kRequest : MessageKind(1 + byte(0) % 8);
  const std::vector<uint16_t>& types = TypesOf(kind);
  header->type = byte(1) < 240 ? types[byte(1) % types.size()] : byte(1);
  header->set_flags({WireFormat(byte(2) % 4), IdCodec(byte(2) / 4 % 3)});
  header->request_id = byte(3);
  *payload = input->subspan(kHeadBytes, std::min<size_t>(byte(4), input->size() - kHeadBytes));
  *input = input->subspan(kHeadBytes + payload->size());
  return true;
}

void CheckInput(Bytes input) {
  if (input.empty()) return;
  const auto kind = Services::Kind(std::to_integer<unsigned>(input[0]) % Services::kKinds);
  input = input.subspan(1);
  Services services(kind);
  const auto transport = services.MakeTransport("peer");
  const auto answers = std::make_shared<Answers>();
  const auto peer = transport->Connect(services.address(), answers);
  PERSIA_CHECK(peer.ok());
  const auto send = [&](const MessageHeader& header, Payload payload) {
    return transport->Send(peer.value(), header, std::move(payload)).ok();
  };
  MessageHeader hello;
  hello.kind = MessageKind::kHello;
  bool open = send(hello, Payload(EncodeHello({kRpcProtocol, 1, 1, kSecret})));
  MessageHeader header;
  Bytes payload;
  for (size_t i = 0; open && i < kMostMessages && NextMessage(kind, &input, &header, &payload); ++i) {
    open = send(header, Payload(Buffer::CopyOf(payload)));
    // One after another, so that an input always does the same.
    if (header.kind == MessageKind::kRequest) answers->Wait({header.request_id});
  }
}

// ---- seeds ----------------------------------------------------------------------------------------------------------

// A request of the type at a place of TypesOf.
std::string Request(uint8_t type, uint8_t id, const Buffer& payload) {
  PERSIA_CHECK(payload.size() < 256);
  return std::string{char(128), char(type), 0, char(id), static_cast<char>(payload.size())} + TextOf(payload);
}
template <typename... Values>
Buffer Numbers(Values... values) {
  WireWriter writer;
  (writer.Value(values), ...);
  return writer.Take();
}
std::string To(Services::Kind kind, const std::string& requests) { return std::string{static_cast<char>(kind)} + requests; }

std::string StoreRequests(const std::vector<uint64_t>& signs) {
  const std::vector<float> rows(4, 0.5f);
  WireWriter lookup, apply, read;
  lookup.Value(uint32_t{0});  // rank
  lookup.Value(uint64_t{1});  // step
  lookup.Value(static_cast<uint8_t>(LookupMode::kTrain));
  lookup.Value(uint32_t{1});  // classes
  WriteSigns(lookup, {}, 0, signs);
  apply.Value(uint32_t{0});
  apply.Value(uint64_t{1});
  apply.Value(uint32_t{1});
  WriteSigns(apply, {}, 0, signs);
  apply.Rows(WireFormat::kFp32, rows.data(), 2, 2);
  WriteSigns(read, {}, 0, signs);
  const uint32_t width = LocalStore(Config().tables).row_width(0);
  const std::vector<float> whole(2 * width, 0.25f);
  const std::vector<RowAge> ages(2);
  return Request(0, 1, lookup.Take()) + Request(1, 2, apply.Take()) +
         Request(3, 3, EncodeWholeRows(0, signs, whole, ages, {})) + Request(4, 4, read.Take()) +
         Request(5, 5, Numbers(uint32_t{0})) + Request(6, 6, Numbers(uint64_t{1})) + Request(8, 7, Numbers(uint32_t{0})) +
         Request(9, 8, {}) + Request(10, 9, Numbers(uint32_t{0})) +
         Request(13, 10, EncodeRequestIds(std::vector<RequestId>{{0, 3}})) + Request(2, 11, Numbers(uint32_t{0}));
}

std::string EmbeddingRequests() {
  const std::vector<uint64_t> ids = {1, 2};
  Batch batch;
  batch.rows = 2;
  batch.id_columns = {{{}, ids}, {{}, ids}};
  WireWriter hold, lookup, update, predict;
  hold.Value(uint32_t{1});
  WritePart(hold, {{1, 0}, 2});
  WriteIds(hold, IdCodec::kRaw, batch);
  WritePart(lookup, {{1, 0}, 2});
  WritePart(update, {{1, 0}, 2});
  const std::vector<float> gradients(8, 0.1f);
  update.Rows(WireFormat::kFp32, gradients.data(), 2, 4);
  predict.Value(uint32_t{2});
  WriteIds(predict, IdCodec::kRaw, batch);
  return Request(0, 1, hold.Take()) + Request(1, 2, lookup.Take()) + Request(2, 3, update.Take()) +
         Request(3, 4, predict.Take()) + Request(5, 5, {}) + Request(4, 6, Numbers(uint32_t{0}));
}

std::string NnRequests() {
  WireWriter part, write;
  StepPart head;
  head.step = 1;
  head.rows = head.global_rows = 1;
  WriteStepPart(part, head);
  for (const float value : {0.5f, 1.0f}) part.Value(value);  // dense, label
  WriteTensorRange(write, {0, 0, 1});
  write.Value(0.5f);
  WireWriter range;
  WriteTensorRange(range, {0, 0, 2});
  WireWriter predict;
  predict.Value(uint32_t{1});
  for (int i = 0; i < 5; ++i) predict.Value(0.5f);
  return Request(12, 1, EncodeStart({0, 0, {}})) + Request(6, 2, {}) + Request(7, 3, range.Take()) +
         Request(8, 4, write.Take()) + Request(4, 5, predict.Take()) + Request(2, 6, EncodeControl({1, {}, 0})) +
         Request(0, 7, part.Take()) + Request(1, 8, Numbers(uint64_t{0})) + Request(13, 9, {}) + Request(9, 10, {}) +
         Request(5, 11, {}) + Request(3, 12, EncodeStatus(Status(ErrorCode::kClosed, "enough")));
}

Seeds MakeSeeds() {
  return {{"parameter-server", To(Services::kParameterServer, StoreRequests({1, 2}))},
          {"repeated-signs", To(Services::kParameterServer, StoreRequests({1, 1}))},
          {"merging-parameter-server", To(Services::kMergingParameterServer, StoreRequests({1, 2}))},
          {"embedding-worker", To(Services::kEmbeddingWorker, EmbeddingRequests())},
          {"nn-worker", To(Services::kNnWorker, NnRequests())}};
}

}  // namespace
}  // namespace persia

#include "entry_points.h"
