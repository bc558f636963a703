// Fuzz target of whole clients: a store on a parameter server, an NN worker's embeddings and shared dense network, a
// driver's data loaders and the driver itself get any answers from a server that knows the secret. Every call ends, with an
// answer or an error; nothing breaks.
//
// The first byte of an input picks the client, which is made anew for it. Then come answers, in the order of requests:
//
//   kind u8 (of MessageKind; half of them are replies; the last one hangs up) | formats u8 | id u8 (0: the request's) |
//   length u16 | payload
//
// A request gets answers until one of them is its own; when there are no more, all fail. The first answer to a driver is what
// its NN worker says of itself, again and again.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/hyperloglog.h"
#include "dense/dense_model.h"
#include "net/in_process_transport.h"
#include "net/rpc_session.h"
#include "seeds.h"
#include "small_model.h"
#include "store/local_store.h"
#include "store/remote_store.h"
#include "store/store_messages.h"
#include "trainer/cluster_trainer.h"
#include "trainer/loader_clients.h"
#include "trainer/loader_messages.h"
#include "trainer/nn_messages.h"
#include "trainer/remote_dense.h"
#include "worker/embedding_messages.h"
#include "worker/remote_embeddings.h"

namespace persia {
namespace {

constexpr const char* kSecret = "a secret of more than 16 bytes";
constexpr uint64_t kDeadlineMs = 2'000;
constexpr std::chrono::microseconds kWatchEvery{200};
constexpr std::chrono::milliseconds kRestWithin{10};  // a driver whose NN worker says nothing of a rest has none
constexpr uint32_t kRows = 2;                         // of every call

enum Client : uint8_t { kStore, kEmbeddings, kDense, kLoaders, kDriver, kClients };

// ---- the server -----------------------------------------------------------------------------------------------------

struct Answer {
  MessageHeader header;
  Bytes payload;
  bool hangs_up = false;
};

// The next answer of an input; false at its end.
bool NextAnswer(Bytes* input, Answer* answer) {
  constexpr size_t kHeadBytes = 5;
  if (input->size() < kHeadBytes) return false;
  const auto byte = [&](size_t i) { return std::to_integer<uint8_t>((*input)[i]); };
  answer->hangs_up = byte(0) == 127;
  answer->header.kind = byte(0) >= 128 ? MessageKind::kReply : MessageKind(1 + byte(0) % 8);
  answer->header.set_flags({WireFormat(byte(1) % 4), IdCodec(byte(1) / 4 % 3)});
  answer->header.request_id = byte(2);
  const size_t length = byte(3) | size_t{byte(4)} << 8;
  answer->payload = input->subspan(kHeadBytes, std::min(length, input->size() - kHeadBytes));
  *input = input->subspan(kHeadBytes + answer->payload.size());
  return true;
}

// Admits whoever comes, and answers as the input says. All on its transport's progress thread, but End.
class OddServer final : public PeerHandler, public std::enable_shared_from_this<OddServer> {
 public:
  OddServer(Transport& transport, Bytes input, bool watched) : transport_(transport), input_(input) {
    if (watched) NextAnswer(&input_, &state_);
  }

  // Watches fail from now on, so that a driver need not wait for an NN worker to end.
  void End() { ended_.store(true); }

  void OnMessage(PeerId peer, const MessageHeader& header, Buffer) override {
    if (header.kind == MessageKind::kHello) {
      transport_.Admit(peer);
      MessageHeader welcome;
      welcome.kind = MessageKind::kWelcome;
      return Send(peer, welcome, Payload(EncodeWelcome(1)));
    }
    if (header.kind != MessageKind::kRequest) return;
    if (header.type == nn_request::kWatch) return AnswerWatch(peer, header.request_id);
    Answer answer;
    while (NextAnswer(&input_, &answer)) {
      if (answer.hangs_up) return transport_.Disconnect(peer);
      if (answer.header.request_id == 0) answer.header.request_id = header.request_id;
      Send(peer, answer.header, Payload(Buffer::CopyOf(answer.payload)));
      const bool ends = answer.header.kind == MessageKind::kReply || answer.header.kind == MessageKind::kFailure;
      if (ends && answer.header.request_id == header.request_id) return;
    }
    Refuse(peer, header.request_id);
  }
  void OnLost(PeerId, const Status&) override {}

 private:
  // Not at once, as no NN worker does.
  void AnswerWatch(PeerId peer, uint64_t id) {
    transport_.PostAt(SteadyClock::now() + kWatchEvery, [self = shared_from_this(), peer, id] {
      if (self->ended_.load()) return self->Refuse(peer, id);
      MessageHeader header;
      header.kind = MessageKind::kReply;
      header.request_id = id;
      self->Send(peer, header, Payload(Buffer::CopyOf(self->state_.payload)));
    });
  }
  void Refuse(PeerId peer, uint64_t id) {
    MessageHeader header;
    header.kind = MessageKind::kFailure;
    header.request_id = id;
    Send(peer, header, Payload(EncodeStatus(Status(ErrorCode::kClosed, "no more"))));
  }
  void Send(PeerId peer, const MessageHeader& header, Payload payload) {
    static_cast<void>(transport_.Send(peer, header, std::move(payload)).ok());
  }

  Transport& transport_;
  Bytes input_;
  Answer state_;
  std::atomic<bool> ended_{false};
};

// ---- the clients ----------------------------------------------------------------------------------------------------

void UseStore(const RoleClients& servers, const TrainerConfig& config) {
  RemoteStore store(config.tables, servers, {});
  const std::vector<uint64_t> signs = {1, 2};
  std::vector<float> rows(kRows * config.tables[0].dim), whole(kRows * store.row_width(0));
  uint8_t found[kRows];
  const LookupBlock lookup{0, signs, rows.data()};
  const GradientBlock gradients{0, signs, rows.data()};
  (void)store.Lookup({0, 1}, LookupMode::kTrain, {&lookup, 1});
  (void)store.Apply({0, 1}, {&gradients, 1});
  (void)store.ReadMany(0, signs, whole, found);
  (void)store.WriteMany(0, signs, whole, {});
  double sum = 0;
  (void)store.Scan(0, [&](uint64_t, std::span<const float> row, const RowAge&) { sum += row[0] + row.back(); });
  (void)store.RowCount(0);
  (void)store.counters(0);
  (void)store.group_counters(0);
  const auto state = store.SaveState(0);
  if (state.ok()) (void)store.RestoreState(0, state.value());
  (void)store.AppliedRequests();
}

void UseEmbeddings(const RoleClients& workers, const TrainerConfig& config) {
  const uint32_t width = config.schema.embedding_width;
  const auto embeddings = MakeRemoteEmbeddings(0, width, workers, WireFormat::kFp16);
  std::vector<float> pooled(kRows * (width + 1));
  (void)embeddings->Lookup(1, kRows, pooled.data(), width + 1);
  (void)embeddings->Update(1, kRows, pooled.data(), width + 1);
  (void)embeddings->Skip(2, kRows);
  embeddings->Leave();
}

void UseDense(const RoleClients& workers, const TrainerConfig& config) {
  const auto dense = MakeRemoteDense(workers);
  const auto replica = MakeCpuDenseModel(config.dense);
  PERSIA_CHECK(replica.ok());
  (void)dense->Pull(*replica.value());
  (void)dense->Push(1, replica.value()->Gradients(), 0);
}

void UseLoaders(LoaderClients& loaders) {
  (void)loaders.Open({1, "a pass"});
  const BatchPlace place{1, 1};
  PERSIA_CHECK(loaders.Has(place));
  loaders.Ask(place, [](const auto&) {});
  loaders.Send(place, 1, [](const auto&) {});
}

// A driver with a server that is all of its roles.
void UseDriver(OddServer& server, const std::shared_ptr<Transport>& transport, const TrainerConfig& config,
               const RoleClientsOptions& role) {
  auto made = ClusterTrainer::Create(
      transport, {.config = config,
                  .parameter_servers = role,
                  .embedding_workers = role,
                  .nn_workers = role,
                  .loaders = std::make_shared<LoaderClients>(transport, RoleClientsOptions{"data loader", {}, kSecret, 1, kDeadlineMs})});
  if (!made.ok()) return;
  ClusterTrainer& trainer = **made;
  // Kept alive: the trainer answers it at the latest when it is closed.
  struct Rest {
    std::mutex mutex;
    std::condition_variable changed;
    bool over = false;
  };
  const auto rest = std::make_shared<Rest>();
  trainer.Pause(std::nullopt, [rest](const Status&) {
    std::lock_guard lock(rest->mutex);
    rest->over = true;
    rest->changed.notify_all();
  });
  {
    std::unique_lock lock(rest->mutex);
    rest->changed.wait_for(lock, kRestWithin, [&] { return rest->over; });
  }
  const auto folder = std::filesystem::temp_directory_path() / ("persia-fuzz-driver-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  (void)trainer.Save(folder.string()).ok();
  (void)trainer.Restore(folder.string(), {});
  std::filesystem::remove_all(folder);
  const std::vector<uint64_t> ids = {1, 2};
  const std::vector<float> dense = {0.5f, 0.25f};
  Batch batch;
  batch.rows = kRows;
  batch.id_columns = {{{}, ids}, {{}, ids}};
  batch.dense = dense;
  std::vector<float> outputs;
  (void)trainer.Predict(batch, &outputs);
  (void)trainer.progress();
  (void)trainer.counters();
  (void)trainer.StageReports();
  (void)trainer.Trace();
  server.End();
}

void CheckInput(Bytes input) {
  if (input.empty()) return;
  const auto client = Client(std::to_integer<unsigned>(input[0]) % kClients);
  const TrainerConfig config = SmallModel();
  const auto network = MakeInProcessNetwork();
  const std::shared_ptr<Transport> theirs = MakeInProcessTransport(network, "server");
  const std::shared_ptr<Transport> ours = MakeInProcessTransport(network, "client");
  const auto server = std::make_shared<OddServer>(*theirs, input.subspan(1), client == kDriver);
  const auto address = theirs->Listen("server:0", [server](PeerId, const std::string&) { return server; });
  PERSIA_CHECK(address.ok());
  const RoleClientsOptions role{"server", {address.value()}, kSecret, 1, kDeadlineMs};
  if (client == kDriver) {
    UseDriver(*server, ours, config, role);
  } else if (client == kLoaders) {
    LoaderClients loaders(ours, {"data loader", {"", address.value()}, kSecret, 1, kDeadlineMs});
    if (loaders.WaitUntilReady().ok()) UseLoaders(loaders);
    loaders.Close();
  } else {
    RoleClients servers(ours, role);
    constexpr void (*kUse[])(const RoleClients&, const TrainerConfig&) = {UseStore, UseEmbeddings, UseDense};
    if (servers.WaitUntilReady().ok()) kUse[client](servers, config);
    servers.Close();
  }
  ours->Close();
  theirs->Close();
}

// ---- seeds ----------------------------------------------------------------------------------------------------------

std::string Reply(const Buffer& payload = {}, uint8_t formats = 0) {
  PERSIA_CHECK(payload.size() < 65'536);
  const size_t bytes = payload.size();
  return std::string{char(128), char(formats), 0, static_cast<char>(bytes & 255), static_cast<char>(bytes >> 8)} +
         TextOf(payload);
}
std::string Of(Client client, const std::string& replies) { return std::string{static_cast<char>(client)} + replies; }

template <typename... Values>
Buffer Numbers(Values... values) {
  WireWriter writer;
  (writer.Value(values), ...);
  return writer.Take();
}
Buffer Floats(size_t count, WireFormat format = WireFormat::kFp32) {
  const std::vector<float> values(count, 0.5f);
  WireWriter writer;
  writer.Rows(format, values.data(), count, 1);
  return writer.Take();
}

std::string StoreAnswers() {
  const TrainerConfig config = SmallModel();
  const uint32_t width = LocalStore(config.tables).row_width(0);
  const std::vector<uint64_t> signs = {1, 2};
  const std::vector<float> whole(kRows * width, 0.25f);
  const std::vector<RowAge> ages(kRows);
  WireWriter read, words;
  for (int i = 0; i < 2; ++i) read.Value(uint8_t{1});
  read.Rows(WireFormat::kFp32, whole.data(), kRows, width);
  words.Ids(IdCodec::kRaw, std::vector<uint64_t>{1, 3, 4});
  StoreCounters counters;
  counters.classes = {{{}, {}, {}}};
  const std::string counted = Reply(EncodeCounters(counters));
  return Reply(Floats(2 * kRows)) + Reply() + Reply(read.Take()) + Reply() + Reply(Numbers(uint64_t{1})) +
         Reply(EncodeWholeRows(0, signs, whole, ages, {})) + Reply(EncodeWholeRows(0, {}, {}, {}, {})) +
         Reply(Numbers(uint64_t{2})) + counted + counted + Reply(words.Take()) + Reply(Numbers(uint8_t{1})) +
         Reply(EncodeRequestIds(std::vector<RequestId>{{0, 3}}));
}

std::string DriverAnswers() {
  const TrainerConfig config = SmallModel();
  const auto model = MakeCpuDenseModel(config.dense);
  PERSIA_CHECK(model.ok());
  NnState state;
  state.version = 1;
  state.control = 1;
  state.at_rest = true;
  state.histogram = {1, 2, 3};
  const std::vector<std::vector<uint8_t>> seen(config.schema.features.size(), std::vector<uint8_t>(HyperLogLog::kRegisters));
  std::string tensors;
  for (const NamedTensor& tensor : model.value()->Tensors()) tensors += Reply(Floats(tensor.values.size()));
  return Reply(EncodeState(state)) + Reply() +
         Reply(EncodeRequestIds(std::vector<RequestId>{{0, 3}})) + Reply(EncodeInFlight({})) + Reply(EncodeSeen(seen)) +
         Reply(EncodeTensors(model.value()->Tensors())) + tensors + Reply(EncodeWholeRows(0, {}, {}, {}, {}));
}

Seeds MakeSeeds() {
  const TrainerConfig config = SmallModel();
  const auto model = MakeCpuDenseModel(config.dense);
  PERSIA_CHECK(model.ok());
  WireWriter pull;
  pull.Value(uint64_t{1});
  for (const NamedTensor& tensor : model.value()->Tensors()) pull.Raw(std::as_bytes(tensor.values));
  const size_t pooled = kRows * config.schema.embedding_width;
  return {{"store", Of(kStore, StoreAnswers())},
          {"embeddings", Of(kEmbeddings, Reply(Floats(pooled, WireFormat::kFp16), 1) + Reply() + Reply() + Reply())},
          {"dense", Of(kDense, Reply(pull.Take()) + Reply())},
          {"loaders", Of(kLoaders, Reply() + Reply(EncodeAskReply(7)) + Reply())},
          {"driver", Of(kDriver, DriverAnswers())},
          {"hangs-up", Of(kStore, std::string{127, 0, 0, 0, 0} + Reply(Floats(2 * kRows)))}};
}

}  // namespace
}  // namespace persia

#include "entry_points.h"
