// LoaderClients: all data loaders of a cluster as the driver sees them. It is number 0 itself; batch b of a pass is with
// number b % n.
//
// Errors name the loader, as RoleClients do. Reading may take as long as it takes: of a batch that is asked for only the
// loss of its loader ends the waiting.
//
// Thread-safety: any thread, but not callbacks of the transport. Completions run on the transport's progress thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "batch/batch.h"
#include "net/role_clients.h"
#include "trainer/loader_queue.h"

namespace persia {

class LoaderClients {
 public:
  using Done = std::function<void(Status)>;
  // The batch, of which only the number of rows is here; nothing: the pass has no such batch.
  using BatchDone = std::function<void(Result<std::shared_ptr<const Batch>>)>;

  // The driver's own address is empty.
  LoaderClients(std::shared_ptr<Transport> transport, RoleClientsOptions loaders)
      : loaders_(std::move(transport), std::move(loaders)) {}

  // Whether a batch is with another process.
  bool Has(const BatchPlace& place) const { return size() > 0 && LoaderOf(place) != 0; }
  Status WaitUntilReady() { return loaders_.WaitUntilReady(); }

  // Tells all of a pass; returns when they know. Passes have rising numbers.
  Status Open(const LoaderQueue::Pass& pass) const;
  // Asks the loader of a batch, which is another process (Has).
  void Ask(const BatchPlace& place, BatchDone done) const;
  // Has a batch that was asked for trained as `step`; `done` when the NN workers have it.
  void Send(const BatchPlace& place, uint64_t step, Done done) const;

  // Ends what waits with kClosed, and returns when all completions have run. Idempotent.
  void Close() { loaders_.Close(); }

 private:
  uint32_t size() const { return loaders_.size(); }
  uint32_t LoaderOf(const BatchPlace& place) const { return static_cast<uint32_t>(place.batch % size()); }

  RoleClients loaders_;
};

}  // namespace persia
