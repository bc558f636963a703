#include "batch/batch.h"

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

namespace persia {
namespace {

// A valid batch of 3 samples: one feature with one id each, one jagged feature, two dense columns, one label.
struct Fixture {
  FeatureSchema schema =
      BuildFeatureSchema({{.name = "user", .dim = 8}, {.name = "ads", .dim = 8, .group = 1}}, 8).value();
  std::vector<uint64_t> users{10, 11, 12};
  std::vector<uint64_t> ads{20, 21, 22, 23};
  std::vector<uint32_t> ad_offsets{0, 1, 1, 4};
  std::vector<float> dense{1, 2, 3, 4, 5, 6};
  std::vector<float> labels{0, 1, 0};

  Batch Make() const {
    Batch batch;
    batch.rows = 3;
    batch.dense_count = 2;
    batch.label_count = 1;
    batch.id_columns = {{{}, users}, {ad_offsets, ads}};
    batch.dense = dense;
    batch.labels = labels;
    return batch;
  }

  // The message of a refusal; fails when the batch is accepted or the code is another.
  std::string Refusal(const Batch& batch, uint32_t label_count = 1) const {
    const Status status = ValidateBatch(batch, schema, 2, label_count);
    CHECK(status.code() == ErrorCode::kBatchInvalid);
    return status.message();
  }
};

bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("a batch that fits the model is accepted, with and without labels where none are asked for") {
  Fixture f;
  Batch batch = f.Make();
  CHECK(ValidateBatch(batch, f.schema, 2, 1).ok());
  CHECK(ValidateBatch(batch, f.schema, 2, 0).ok());
  batch.label_count = 0;
  batch.labels = {};
  CHECK(ValidateBatch(batch, f.schema, 2, 0).ok());
  CHECK(Contains(f.Refusal(batch), "1 label columns, the batch has 0"));
}

TEST_CASE("a batch without samples is accepted for prediction only") {
  Fixture f;
  const std::vector<uint32_t> offsets{0};
  Batch batch;
  batch.dense_count = 2;
  batch.id_columns = {{{}, {}}, {offsets, {}}};
  CHECK(ValidateBatch(batch, f.schema, 2, 0).ok());
  batch.label_count = 1;
  CHECK(Contains(f.Refusal(batch), "at least 1 sample"));
}

TEST_CASE("a missing feature is refused with both counts") {
  Fixture f;
  Batch batch = f.Make();
  batch.id_columns.pop_back();
  CHECK(Contains(f.Refusal(batch), "2 id features, the batch has 1"));
}

TEST_CASE("a feature with too few ids is refused by name") {
  Fixture f;
  f.users.pop_back();
  const std::string message = f.Refusal(f.Make());
  CHECK(Contains(message, "\"user\""));
  CHECK(Contains(message, "3 samples has one id, got 2"));
}

TEST_CASE("offsets of the wrong count, start, order or end are refused with feature, sample and numbers") {
  Fixture f;
  f.ad_offsets = {0, 1, 4};
  CHECK(Contains(f.Refusal(f.Make()), "needs 4 offsets, got 3"));
  f.ad_offsets = {1, 1, 1, 4};
  CHECK(Contains(f.Refusal(f.Make()), "start with 0, got 1"));
  f.ad_offsets = {0, 3, 2, 4};
  CHECK(Contains(f.Refusal(f.Make()), "\"ads\": offsets must not fall, but sample 1 goes from 3 to 2"));
  f.ad_offsets = {0, 1, 1, 5};
  CHECK(Contains(f.Refusal(f.Make()), "the last offset is 5, but there are 4 ids"));
  f.ad_offsets = {0, 1, 1, 3};
  CHECK(Contains(f.Refusal(f.Make()), "the last offset is 3, but there are 4 ids"));
}

TEST_CASE("details of a refusal name the feature and the sample for programs") {
  Fixture f;
  f.ad_offsets = {0, 3, 2, 4};
  const Status status = ValidateBatch(f.Make(), f.schema, 2, 1);
  const std::vector<std::pair<std::string, std::string>> expected{{"feature", "ads"}, {"sample", "1"}};
  CHECK(status.details() == expected);
}

TEST_CASE("dense and label matrices of the wrong size are refused") {
  Fixture f;
  Batch batch = f.Make();
  batch.dense_count = 3;
  CHECK(Contains(f.Refusal(batch), "2 dense columns, the batch has 3"));
  batch = f.Make();
  batch.dense = batch.dense.first(5);
  CHECK(Contains(f.Refusal(batch), "6 values, got 5"));
  batch = f.Make();
  batch.labels = batch.labels.first(2);
  CHECK(Contains(f.Refusal(batch), "3 values, got 2"));
}

TEST_CASE("values that are not finite are refused with their sample and column") {
  Fixture f;
  f.dense[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK(Contains(f.Refusal(f.Make()), "dense value of sample 1, column 1"));
  f.dense[3] = -std::numeric_limits<float>::infinity();
  CHECK(Contains(f.Refusal(f.Make()), "dense value of sample 1, column 1"));
  f.dense[3] = std::numeric_limits<float>::max();
  f.labels[2] = std::numeric_limits<float>::infinity();
  CHECK(Contains(f.Refusal(f.Make()), "label value of sample 2, column 0"));
}

TEST_CASE("a part of a batch has the values of its rows, a part of a part too") {
  Fixture f;
  const Batch batch = f.Make();
  const auto ids = [](const Batch& part, size_t feature, uint32_t row) {
    const IdColumn& column = part.id_columns[feature];
    const auto values = column.ids.subspan(column.begin(row), column.end(row) - column.begin(row));
    return std::vector<uint64_t>(values.begin(), values.end());
  };
  const Batch last = PartOf(batch, 1, 2);
  for (const Batch& part : {PartOf(batch, 2, 1), PartOf(last, 1, 1)}) {
    CHECK(part.rows == 1);
    CHECK(ids(part, 0, 0) == std::vector<uint64_t>{12});
    CHECK(ids(part, 1, 0) == std::vector<uint64_t>{21, 22, 23});
    CHECK(part.dense.size() == 2);
    CHECK(part.dense[1] == 6);
    CHECK(part.labels[0] == 0);
  }
  CHECK(ids(last, 1, 0).empty());
  CHECK(last.labels[0] == 1);
  const Batch none = PartOf(batch, 3, 0);
  CHECK(none.rows == 0);
  CHECK(none.id_columns[1].ids.empty());
  CHECK(none.dense.empty());
}

}  // namespace
}  // namespace persia
