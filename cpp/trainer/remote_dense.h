// The shared dense store of mode async, where it is in another process: at NN worker 0.
#pragma once

#include <memory>

#include "net/role_clients.h"
#include "trainer/dense_training.h"

namespace persia {

// `nn_workers` outlives the result.
std::shared_ptr<SharedDense> MakeRemoteDense(const RoleClients& nn_workers);

// The other end: answers pulls and pushes. `replica` is a model of the store's shape, scratch of Pull.
class DenseService {
 public:
  DenseService(std::shared_ptr<DenseStore> store, std::unique_ptr<DenseModel> replica)
      : store_(std::move(store)), replica_(std::move(replica)) {}

  Result<Buffer> Pull();
  Status Push(Bytes request);

 private:
  const std::shared_ptr<DenseStore> store_;
  std::mutex mutex_;  // guards replica_
  const std::unique_ptr<DenseModel> replica_;
};

}  // namespace persia
