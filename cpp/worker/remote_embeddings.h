// The embeddings of an NN worker whose embedding workers are other processes.
#pragma once

#include <cstdint>
#include <memory>

#include "net/role_clients.h"
#include "worker/step_embeddings.h"

namespace persia {

// `workers` outlives the result. Pooled embeddings and their gradients travel in `format`.
std::unique_ptr<StepEmbeddings> MakeRemoteEmbeddings(uint32_t rank, uint32_t embedding_width,
                                                     const RoleClients& workers, WireFormat format);

}  // namespace persia
