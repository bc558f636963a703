#include "worker/embedding_worker.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "base/rng.h"
#include "sanitizers.h"
#include "store/local_store.h"

namespace persia {
namespace {

using Ids = std::vector<std::vector<uint64_t>>;  // by sample

// The jagged columns of a batch, in memory of its own.
class TestBatch {
 public:
  explicit TestBatch(const std::vector<Ids>& features) {
    columns_.resize(features.size());
    for (size_t f = 0; f < features.size(); ++f) {
      columns_[f].offsets.push_back(0);
      for (const auto& sample : features[f]) {
        columns_[f].ids.insert(columns_[f].ids.end(), sample.begin(), sample.end());
        columns_[f].offsets.push_back(static_cast<uint32_t>(columns_[f].ids.size()));
      }
      batch_.rows = static_cast<uint32_t>(features[f].size());
    }
    for (const Column& column : columns_) batch_.id_columns.push_back({column.offsets, column.ids});
  }

  const Batch& operator*() const { return batch_; }

 private:
  struct Column {
    std::vector<uint32_t> offsets;
    std::vector<uint64_t> ids;
  };
  std::vector<Column> columns_;
  Batch batch_;
};

// A worker over a store where a row is its start minus the sum of its gradients.
struct Fixture {
  explicit Fixture(std::vector<FeatureSpec> features, InitializerType type = InitializerType::kUniform)
      : schema(BuildFeatureSchema(std::move(features), 8).value()),
        store(TablesOf(schema, type)),
        worker(schema, store) {}

  static std::vector<TableOptions> TablesOf(const FeatureSchema& schema, InitializerType type) {
    std::vector<TableOptions> tables;
    for (const uint32_t dim : schema.row_class_dims) {
      tables.push_back({.dim = dim,
                        .optimizer = {.type = RowOptimizerType::kSgd, .lr = 1.0f},
                        .initializer = {.type = type},
                        .capacity_rows = 1000});
    }
    return tables;
  }

  void SetRow(uint32_t feature, uint64_t id, const std::vector<float>& row) {
    const FeatureSpec& spec = schema.features[feature];
    REQUIRE(store.Write(spec.row_class, MakeSign(id, spec.group, 8), row).ok());
  }

  std::vector<float> Row(uint32_t feature, uint64_t id) const {
    const FeatureSpec& spec = schema.features[feature];
    std::vector<float> row(spec.dim);
    const auto found = store.Read(spec.row_class, MakeSign(id, spec.group, 8), row);
    REQUIRE(found.ok());
    REQUIRE(found.value());
    return row;
  }

  std::vector<float> Lookup(const Batch& batch, LookupMode mode = LookupMode::kTrain) {
    worker.Prepare(batch, plan);
    std::vector<float> pooled(size_t{batch.rows} * schema.embedding_width, 99.0f);
    REQUIRE(worker.Lookup({1, 1}, mode, plan, pooled.data(), schema.embedding_width).ok());
    return pooled;
  }

  void Apply(const std::vector<float>& gradients) {
    REQUIRE(worker.Apply({1, ++sequence}, plan, gradients.data(), schema.embedding_width).ok());
  }

  FeatureSchema schema;
  LocalStore store;
  EmbeddingWorker worker;
  EmbeddingPlan plan;
  uint64_t sequence = 0;
};

// Batches of one id a sample for a feature with ids begin, begin + 1, … end - 1.
Ids IdRange(uint64_t begin, uint64_t end) {
  Ids samples;
  for (uint64_t id = begin; id < end; ++id) samples.push_back({id});
  return samples;
}

FeatureSpec Feature(const std::string& name, uint32_t dim, Pooling pooling, uint32_t group) {
  return {.name = name, .dim = dim, .pooling = pooling, .group = group};
}

FeatureSpec Sequence(const std::string& name, uint32_t dim, Pooling pooling, uint32_t group, uint32_t length) {
  return {.name = name, .dim = dim, .pooling = pooling, .group = group, .sequence_length = length};
}

const std::vector<FeatureSpec> kThreePoolings = {Feature("sum", 2, Pooling::kSum, 0),
                                                 Feature("mean", 2, Pooling::kMean, 1),
                                                 Feature("sqrt", 2, Pooling::kSqrt, 2)};

// Sample 0 has four ids with one twice, sample 1 none, sample 2 one.
const Ids kSamples = {{1, 2, 1, 3}, {}, {2}};

TEST_CASE("pooling sums, averages and scales by the root, repeated ids count twice, no ids give zeros") {
  Fixture f(kThreePoolings);
  for (uint32_t feature = 0; feature < 3; ++feature) {
    f.SetRow(feature, 1, {1, 10});
    f.SetRow(feature, 2, {2, 20});
    f.SetRow(feature, 3, {4, 40});
  }
  const TestBatch batch({kSamples, kSamples, kSamples});
  const std::vector<float> expected{8, 80, 2, 20, 4, 40,  // 1 + 2 + 1 + 4, / 4, / 2
                                    0, 0,  0, 0,  0, 0,   //
                                    2, 20, 2, 20, 2, 20};
  CHECK(f.Lookup(*batch) == expected);
}

TEST_CASE("gradients go back to each row as often as its id occurs, scaled as it was pooled") {
  Fixture f(kThreePoolings, InitializerType::kZeros);
  const TestBatch batch({kSamples, kSamples, kSamples});
  f.Lookup(*batch);
  f.Apply({4, 8, 4, 8, 4, 8,    //
           9, 9, 9, 9, 9, 9,    // of a sample without ids: goes nowhere
           1, 1, 1, 1, 1, 1});
  CHECK(f.Row(0, 1) == std::vector<float>{-8, -16});
  CHECK(f.Row(0, 2) == std::vector<float>{-5, -9});
  CHECK(f.Row(0, 3) == std::vector<float>{-4, -8});
  CHECK(f.Row(1, 1) == std::vector<float>{-2, -4});
  CHECK(f.Row(1, 2) == std::vector<float>{-2, -3});
  CHECK(f.Row(1, 3) == std::vector<float>{-1, -2});
  CHECK(f.Row(2, 1) == std::vector<float>{-4, -8});
  CHECK(f.Row(2, 2) == std::vector<float>{-3, -5});
  CHECK(f.Row(2, 3) == std::vector<float>{-2, -4});
  for (uint32_t c = 0; c < f.store.row_class_count(); ++c) CHECK(f.store.counters(c).rows == 9);
}

TEST_CASE("features of one group and dim share rows, each distinct sign is looked up and updated once") {
  Fixture f({Feature("seen", 2, Pooling::kSum, 0), Feature("bought", 2, Pooling::kSum, 0),
             Feature("other", 2, Pooling::kSum, 1)},
            InitializerType::kZeros);
  const TestBatch batch({{{7}, {8}}, {{8}, {7, 9}}, {{7}, {7}}});
  f.Lookup(*batch);
  CHECK(f.plan.classes[0].distinct == 4);  // 7, 8, 9 of the shared group, 7 of the other
  CHECK(f.store.counters(0).misses == 4);
  f.Apply({1, 1, 10, 10, 100, 100,  //
           2, 2, 20, 20, 200, 200});
  CHECK(f.Row(0, 7) == std::vector<float>{-21, -21});
  CHECK(f.Row(1, 8) == std::vector<float>{-12, -12});
  CHECK(f.Row(0, 9) == std::vector<float>{-20, -20});
  CHECK(f.Row(2, 7) == std::vector<float>{-300, -300});
}

TEST_CASE("features of one group but different dims live in different tables") {
  Fixture f({Feature("narrow", 2, Pooling::kSum, 0), Feature("wide", 3, Pooling::kSum, 0)}, InitializerType::kZeros);
  const TestBatch batch({{{7}}, {{7}}});
  f.Lookup(*batch);
  f.Apply({1, 2, 3, 4, 5});
  CHECK(f.Row(0, 7) == std::vector<float>{-1, -2});
  CHECK(f.Row(1, 7) == std::vector<float>{-3, -4, -5});
  CHECK(f.store.counters(0).rows == 1);
  CHECK(f.store.counters(1).rows == 1);
}

TEST_CASE("an id column without offsets has one id a sample") {
  Fixture f({Feature("user", 2, Pooling::kMean, 0)});
  f.SetRow(0, 5, {1, 2});
  f.SetRow(0, 6, {3, 4});
  const std::vector<uint64_t> ids{6, 5, 6};
  Batch batch;
  batch.rows = 3;
  batch.id_columns = {{{}, ids}};
  CHECK(f.Lookup(batch) == std::vector<float>{3, 4, 1, 2, 3, 4});
}

TEST_CASE("a batch of no samples and a model of no features pass through") {
  Fixture f(kThreePoolings);
  const TestBatch batch({{}, {}, {}});
  CHECK(f.Lookup(*batch).empty());
  f.Apply({});
  Fixture none({});
  Batch bare;
  bare.rows = 4;
  CHECK(none.Lookup(bare).empty());
  none.Apply({});
}

TEST_CASE("pooled embeddings and gradients may lie in a wider matrix, whose other columns are left alone") {
  Fixture f({Feature("user", 2, Pooling::kSum, 0)}, InitializerType::kZeros);
  const TestBatch batch(std::vector<Ids>{{{1}, {2}}});
  f.worker.Prepare(*batch, f.plan);
  std::vector<float> matrix(2 * 5, 7.0f);
  REQUIRE(f.worker.Lookup({1, 1}, LookupMode::kTrain, f.plan, matrix.data() + 3, 5).ok());
  CHECK(matrix == std::vector<float>{7, 7, 7, 0, 0, 7, 7, 7, 0, 0});
  const std::vector<float> gradients{9, 9, 9, 1, 2, 9, 9, 9, 3, 4};
  REQUIRE(f.worker.Apply({1, 1}, f.plan, gradients.data() + 3, 5).ok());
  CHECK(f.Row(0, 1) == std::vector<float>{-1, -2});
  CHECK(f.Row(0, 2) == std::vector<float>{-3, -4});
}

// A weighted sum of all pooled embeddings: its gradient there is the weights.
double Loss(const std::vector<float>& pooled, const std::vector<float>& weights) {
  double loss = 0;
  for (size_t i = 0; i < pooled.size(); ++i) loss += double{pooled[i]} * weights[i];
  return loss;
}

std::vector<Ids> RandomFeatures(Rng& rng, size_t features, size_t samples) {
  std::vector<Ids> ids(features, Ids(samples));
  for (Ids& feature : ids) {
    for (auto& sample : feature) {
      sample.resize(rng.Next() % 5);
      for (uint64_t& id : sample) id = rng.Next() % 6;
    }
  }
  return ids;
}

TEST_CASE("row gradients equal finite differences of the pooled embeddings") {
  Fixture f({Feature("a", 3, Pooling::kSum, 0), Feature("b", 3, Pooling::kMean, 0), Feature("c", 9, Pooling::kSqrt, 0),
             Feature("d", 3, Pooling::kSqrt, 1), Feature("e", 3, Pooling::kLast, 0),
             Sequence("f", 3, Pooling::kNone, 1, 2), Sequence("g", 9, Pooling::kMean, 0, 2)});
  Rng rng(5);
  const TestBatch batch(RandomFeatures(rng, 7, 10));
  const size_t width = f.schema.embedding_width;
  std::vector<float> weights(10 * width);
  for (float& weight : weights) weight = static_cast<float>(rng.Uniform(-1, 1));
  f.Lookup(*batch);

  constexpr float kStep = 0.25f;
  struct Expected {
    uint32_t feature;
    uint64_t id;
    std::vector<float> row;  // after the update
  };
  std::vector<Expected> expected;
  for (const uint32_t feature : {0u, 2u, 3u}) {  // the others share rows with these
    for (uint64_t id = 0; id < 6; ++id) {
      const std::vector<float> row = f.Row(feature, id);
      Expected item{feature, id, row};
      for (size_t d = 0; d < row.size(); ++d) {
        std::vector<float> moved = row;
        moved[d] = row[d] + kStep;
        f.SetRow(feature, id, moved);
        const double up = Loss(f.Lookup(*batch), weights);
        moved[d] = row[d] - kStep;
        f.SetRow(feature, id, moved);
        const double down = Loss(f.Lookup(*batch), weights);
        item.row[d] -= static_cast<float>((up - down) / (2 * kStep));
      }
      f.SetRow(feature, id, row);
      expected.push_back(item);
    }
  }
  f.Lookup(*batch);
  f.Apply(weights);
  for (const Expected& item : expected) {
    const std::vector<float> row = f.Row(item.feature, item.id);
    for (size_t d = 0; d < row.size(); ++d) CHECK(std::abs(row[d] - item.row[d]) < 1e-5f);
  }
}

TEST_CASE("of last pooling only the last id of a sample is looked up, and gets the gradient") {
  Fixture f({Feature("visited", 2, Pooling::kLast, 0)}, InitializerType::kZeros);
  f.SetRow(0, 2, {2, 20});
  f.SetRow(0, 3, {3, 30});
  const TestBatch batch(std::vector<Ids>{{{1, 2, 3}, {}, {1, 2}, {3, 3}}});
  CHECK(f.Lookup(*batch) == std::vector<float>{3, 30, 0, 0, 2, 20, 3, 30});
  CHECK(f.plan.classes[0].distinct == 2);
  f.Apply({1, 1, 9, 9, 5, 5, 1, 1});
  CHECK(f.Row(0, 3) == std::vector<float>{1, 28});
  CHECK(f.Row(0, 2) == std::vector<float>{-3, 15});
}

TEST_CASE("of max pooling each float is the largest, and its gradient goes to where it is from, the first of equals") {
  Fixture f({Feature("visited", 2, Pooling::kMax, 0)}, InitializerType::kZeros);
  f.SetRow(0, 1, {-1, 50});
  f.SetRow(0, 2, {-2, 20});
  f.SetRow(0, 3, {-1, 30});
  const TestBatch batch(std::vector<Ids>{{{2, 3, 1}, {}, {2}, {1, 3, 1}}});
  CHECK(f.Lookup(*batch) == std::vector<float>{-1, 50, 0, 0, -2, 20, -1, 50});
  f.Apply({1, 2, 9, 9, 4, 8, 16, 32});
  CHECK(f.Row(0, 1) == std::vector<float>{-1 - 16, 50 - 2 - 32});
  CHECK(f.Row(0, 2) == std::vector<float>{-2 - 4, 20 - 8});
  CHECK(f.Row(0, 3) == std::vector<float>{-1 - 1, 30});
}

TEST_CASE("an unpooled feature has a vector for each place, zeros for places that a sample does not fill") {
  Fixture f({Feature("user", 2, Pooling::kSum, 0), Sequence("visited", 2, Pooling::kNone, 1, 3)},
            InitializerType::kZeros);
  CHECK(f.schema.embedding_width == 8);
  for (uint64_t id = 1; id <= 5; ++id) f.SetRow(1, id, {static_cast<float>(id), static_cast<float>(10 * id)});
  // More ids than places: the last ones stay, in their order. Repeated ids have a place each.
  const TestBatch batch({{{}, {}, {}}, {{5, 1, 2, 3}, {4, 4}, {}}});
  CHECK(f.Lookup(*batch) == std::vector<float>{0, 0, 1, 10, 2, 20, 3, 30,  //
                                               0, 0, 4, 40, 4, 40, 0, 0,   //
                                               0, 0, 0, 0,  0, 0,  0, 0});
  f.Apply({9, 9, 1, 1, 2, 2, 3, 3,  //
           9, 9, 5, 5, 6, 6, 7, 7,  //
           9, 9, 8, 8, 8, 8, 8, 8});
  CHECK(f.Row(1, 1) == std::vector<float>{0, 9});
  CHECK(f.Row(1, 3) == std::vector<float>{0, 27});
  CHECK(f.Row(1, 4) == std::vector<float>{4 - 11, 40 - 11});  // both places, summed; the masked third adds nothing
  CHECK(f.Row(1, 5) == std::vector<float>{5, 50});
}

TEST_CASE("a sequence length cuts pooled features to their last ids") {
  Fixture f({Sequence("sum", 1, Pooling::kSum, 0, 2), Sequence("mean", 1, Pooling::kMean, 0, 2)});
  for (uint64_t id = 1; id <= 3; ++id) f.SetRow(0, id, {static_cast<float>(id)});
  const TestBatch batch({{{1, 2, 3}, {1}}, {{1, 2, 3}, {1}}});
  CHECK(f.Lookup(*batch) == std::vector<float>{5, 2.5f, 1, 1});
}

FeatureSpec Stacked(const std::string& name, Pooling pooling, uint32_t group, uint32_t length) {
  FeatureSpec spec = Sequence(name, 2, pooling, group, length);
  spec.hash_rounds = 2;
  spec.hash_buckets = 10;
  return spec;
}

TEST_CASE("with a hash stack any number of ids lives in rounds times buckets rows, the sum of one a round each") {
  Fixture f({Stacked("sum", Pooling::kSum, 0, 0), Stacked("mean", Pooling::kMean, 0, 0),
             Stacked("none", Pooling::kNone, 0, 2)});
  for (uint64_t bucket = 0; bucket < 20; ++bucket) f.SetRow(0, bucket, {static_cast<float>(1u << bucket), 1});
  const auto vector_of = [](uint64_t id) {
    const uint64_t first = HashStackBucket(id, 0, 10), second = HashStackBucket(id, 1, 10);
    REQUIRE(first < 10);
    REQUIRE((second >= 10 && second < 20));
    return static_cast<float>((1u << first) + (1u << second));
  };
  const float a = vector_of(77), b = vector_of(78);
  const TestBatch batch({{{77, 78}}, {{77, 78}}, {{77, 78}}});
  CHECK(f.Lookup(*batch) == std::vector<float>{a + b, 4, (a + b) / 2, 2, a, 2, b, 2});
  const TestBatch many({IdRange(0, 1000), IdRange(0, 1000), IdRange(0, 1000)});
  f.Lookup(*many);
  CHECK(f.store.counters(0).rows == 20);
}

TEST_CASE("max pooling compares the sums of hash stacks, and the gradient goes to all rows of the larger one") {
  Fixture f({Stacked("max", Pooling::kMax, 0, 0)}, InitializerType::kZeros);
  const uint64_t id = 5;
  uint64_t other = 6;  // in other rows
  while (HashStackBucket(other, 0, 10) == HashStackBucket(id, 0, 10) ||
         HashStackBucket(other, 1, 10) == HashStackBucket(id, 1, 10)) {
    ++other;
  }
  const auto set = [&](uint64_t of, std::vector<float> first, std::vector<float> second) {
    f.SetRow(0, HashStackBucket(of, 0, 10), std::move(first));
    f.SetRow(0, HashStackBucket(of, 1, 10), std::move(second));
  };
  set(id, {10, 0}, {-9, 3});
  set(other, {2, 1}, {2, 1});
  const TestBatch batch(std::vector<Ids>{{{id, other}}});
  CHECK(f.Lookup(*batch) == std::vector<float>{4, 3});
  f.Apply({1, 2});
  CHECK(f.Row(0, HashStackBucket(id, 0, 10)) == std::vector<float>{10, -2});
  CHECK(f.Row(0, HashStackBucket(id, 1, 10)) == std::vector<float>{-9, 1});
  for (const uint32_t round : {0u, 1u}) CHECK(f.Row(0, HashStackBucket(other, round, 10))[0] == 1);
}

TEST_CASE("the gradient of an id goes to all rows of its hash stack") {
  Fixture f({Stacked("mean", Pooling::kMean, 0, 0)}, InitializerType::kZeros);
  const TestBatch batch(std::vector<Ids>{{{5, 5}}});
  f.Lookup(*batch);
  f.Apply({3, 6});  // of a mean over two ids, which are the same
  for (const uint32_t round : {0u, 1u}) CHECK(f.Row(0, HashStackBucket(5, round, 10)) == std::vector<float>{-3, -6});
  CHECK(f.store.counters(0).rows == 2);
}

TEST_CASE("rows of frozen features are looked up and never updated, what others share with them is trained by those") {
  FeatureSpec frozen = Feature("frozen", 2, Pooling::kSum, 0);
  frozen.frozen = true;
  Fixture f({frozen, Feature("trained", 2, Pooling::kSum, 0), Feature("other", 2, Pooling::kSum, 1)},
            InitializerType::kZeros);
  f.SetRow(0, 1, {1, 10});
  const TestBatch batch({{{1}, {2}, {3}}, {{2}, {2}, {4}}, {{1}, {1}, {1}}});
  CHECK(f.Lookup(*batch)[0] == 1);
  f.Apply({5, 5, 1, 1, 7, 7,  //
           5, 5, 1, 1, 7, 7,  //
           5, 5, 1, 1, 7, 7});
  CHECK(f.Row(0, 1) == std::vector<float>{1, 10});
  CHECK(f.Row(0, 2) == std::vector<float>{-2, -2});  // of the trained feature alone
  CHECK(f.Row(0, 3) == std::vector<float>{0, 0});
  CHECK(f.Row(1, 4) == std::vector<float>{-1, -1});
  CHECK(f.Row(2, 1) == std::vector<float>{-21, -21});
  CHECK(f.worker.distinct_ids(0) == 3);
}

TEST_CASE("a model whose features are all frozen trains without them") {
  FeatureSpec frozen = Feature("frozen", 2, Pooling::kSum, 0);
  frozen.frozen = true;
  Fixture f({frozen}, InitializerType::kZeros);
  const TestBatch batch(std::vector<Ids>{{{1}, {2}}});
  f.Lookup(*batch);
  f.Apply({1, 1, 1, 1});
  f.Apply({1, 1, 1, 1});
  CHECK(f.Row(0, 1) == std::vector<float>{0, 0});
}

TEST_CASE("a row's gradient is scaled down to the clip norm, once summed over the batch") {
  const uint32_t wide = 11;  // more than a vector register, and not a multiple of one
  Fixture f({Feature("a", wide, Pooling::kSum, 0)}, InitializerType::kZeros);
  f.schema.clip_norm = 2.0f;
  const TestBatch batch(std::vector<Ids>{{{1}, {1}, {2}, {3}}});
  f.Lookup(*batch);
  std::vector<float> gradients(4 * wide, 0.0f);
  gradients[0] = gradients[wide] = 3;       // id 1: 6 and 8 together, of norm 10
  gradients[10] = gradients[wide + 10] = 4;
  gradients[2 * wide + 1] = 1.5f;           // id 2: shorter
  f.Apply(gradients);
  CHECK(f.Row(0, 1)[0] == doctest::Approx(-1.2));
  CHECK(f.Row(0, 1)[10] == doctest::Approx(-1.6));
  CHECK(f.Row(0, 2)[1] == -1.5f);
  CHECK(f.Row(0, 3) == std::vector<float>(wide, 0.0f));
}

TEST_CASE("a plan keeps its buffers: a second batch of the same size allocates nothing") {
  Fixture f(kThreePoolings);
  const TestBatch batch({kSamples, kSamples, kSamples}), smaller({{{4}}, {{5}}, {{}}});
  f.Lookup(*batch);
  const auto buffers = [&] {
    std::vector<const void*> all;
    for (const auto& row_class : f.plan.classes) all.insert(all.end(), {row_class.signs.data(), row_class.rows.data()});
    for (const auto& ids : f.plan.features) all.insert(all.end(), {ids.offsets.data(), ids.positions.data()});
    return all;
  };
  const auto before = buffers();
  const std::vector<float> pooled = f.Lookup(*batch);
  f.Lookup(*smaller);
  CHECK(f.Lookup(*batch) == pooled);
  CHECK(buffers() == before);
}

bool IsNear(uint64_t estimate, double exact) {
  constexpr double kThreeStandardErrors = 3 * 0.01625;
  return std::abs(static_cast<double>(estimate) - exact) <= kThreeStandardErrors * exact;
}

TEST_CASE("distinct ids are counted by feature, those that come again only once" * OneThread()) {
  Fixture f({Feature("user", 2, Pooling::kSum, 0), Feature("item", 2, Pooling::kSum, 1),
             Feature("wide", 3, Pooling::kSum, 0)});
  CHECK(f.worker.distinct_ids(0) == 0);
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (uint64_t step = 0; step < 10; ++step) {
      const TestBatch batch({IdRange(500 * step, 500 * step + 1000), IdRange(0, 1000), Ids(1000, {7, 7, 8})});
      f.Lookup(*batch);
    }
  }
  CHECK(IsNear(f.worker.distinct_ids(0), 5'500));
  CHECK(IsNear(f.worker.distinct_ids(1), 1000));
  CHECK(f.worker.distinct_ids(2) == 2);
}

TEST_CASE("features that share signs each count their own ids, also those that another brought first") {
  Fixture f({Feature("seen", 2, Pooling::kSum, 0), Feature("bought", 2, Pooling::kSum, 0),
             Feature("liked", 2, Pooling::kSum, 0)});
  const TestBatch batch({IdRange(0, 3000), IdRange(2000, 5000), IdRange(0, 3000)});
  f.Lookup(*batch);
  CHECK(IsNear(f.worker.distinct_ids(0), 3000));
  CHECK(IsNear(f.worker.distinct_ids(1), 3000));
  CHECK(f.worker.distinct_ids(2) == f.worker.distinct_ids(0));
}

TEST_CASE("ids that are only read don't count as seen") {
  Fixture f({Feature("user", 2, Pooling::kSum, 0)});
  const TestBatch batch(std::vector<Ids>{IdRange(0, 100)});
  f.Lookup(*batch, LookupMode::kReadOnly);
  CHECK(f.worker.distinct_ids(0) == 0);
  f.Lookup(*batch);
  CHECK(IsNear(f.worker.distinct_ids(0), 100));
}

TEST_CASE("ids that several threads look up at once are all counted") {
  Fixture f({Feature("user", 2, Pooling::kSum, 0)});
  Fixture alone({Feature("user", 2, Pooling::kSum, 0)});
  alone.Lookup(*TestBatch(std::vector<Ids>{IdRange(0, 5000)}));
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&f, t] {
      const TestBatch batch(std::vector<Ids>{IdRange(1000 * t, 1000 * t + 2000)});
      EmbeddingPlan plan;
      std::vector<float> pooled(2 * 2000);
      f.worker.Prepare(*batch, plan);
      CHECK(f.worker.Lookup({t, 1}, LookupMode::kTrain, plan, pooled.data(), 2).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(f.worker.distinct_ids(0) == alone.worker.distinct_ids(0));
}

}  // namespace
}  // namespace persia
