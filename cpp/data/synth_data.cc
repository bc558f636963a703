#include "data/synth_data.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "base/permutation.h"
#include "base/rng.h"
#include "base/status.h"

namespace persia {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr uint32_t kGroups = 8;           // numbers of missing groups are below
constexpr double kSeen = 2000;            // ranks up to about this one have effects that a model can learn
constexpr uint64_t kSampleRows = 100'000;  // of estimates
constexpr uint64_t kSampleStream = 0x73616d706c650000;  // rows of estimates are none of the data's

constexpr uint64_t kRowStream = 1, kIdStream = 2, kEffectStream = 3, kCrossStream = 4, kHistoryStream = 5;

double UniformOf(uint64_t bits) { return static_cast<double>(static_cast<int64_t>(bits >> 11)) * 0x1.0p-53; }

// About standard normal: the sum of four uniform numbers of 16 bits.
double NormalOf(uint64_t bits) {
  const auto part = [&](int i) { return static_cast<double>((bits >> (16 * i)) & 0xFFFF); };
  constexpr double kMean = 2 * 65535.0, kDeviation = 37837.2;  // sqrt(4 · 65536² / 12)
  return (part(0) + part(1) + part(2) + part(3) - kMean) / kDeviation;
}

// The first rank with which the most frequent values have more than a share u.
int64_t RankOf(const QuantileTable& law, double u) {
  const double values = law.At(u);
  const auto whole = static_cast<int64_t>(values);
  return whole - (static_cast<double>(whole) == values ? 1 : 0);
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Between (from, low) and (to, high), in the logarithm of the value.
double LogBetween(double at, double from, double to, double low, double high) {
  if (to <= from) return high;
  const double share = (at - from) / (to - from);
  return std::exp(std::log(low) + share * (std::log(high) - std::log(low)));
}

}  // namespace

// The number of the most frequent values that have a share together; between the known ones a law falls as 1 / rank.
QuantileTable QuantileTable::OfRanks(const SynthField& field) {
  QuantileTable table;
  const double last = field.distinct;
  const double shares[] = {0, field.top1, field.top10, field.top100, 1};
  const double counts[] = {1, 1, std::min(10.0, last), std::min(100.0, last), last};
  for (uint32_t i = 0; i <= kSteps; ++i) {
    const double u = static_cast<double>(i) / kSteps;
    size_t piece = 1;
    while (piece < 4 && (u > shares[piece] || shares[piece] <= shares[piece - 1])) ++piece;
    const size_t before = piece - 1;
    const double count =
        piece == 1 ? 1 : LogBetween(u, shares[before], shares[piece], counts[before], counts[piece]);
    table.values_[i] = std::min(count, last);
  }
  return table;
}

QuantileTable QuantileTable::OfNumbers(const SynthDense& column) {
  QuantileTable table;
  constexpr double kShares[] = {0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1};
  double values[8] = {column.least};
  std::copy(std::begin(column.quantiles), std::end(column.quantiles), values + 1);
  values[7] = column.most;
  const double shift = 1 - column.least;  // logarithms of numbers from 1 on
  size_t piece = 1;
  for (uint32_t i = 0; i <= kSteps; ++i) {
    const double u = static_cast<double>(i) / kSteps;
    while (piece < 7 && u > kShares[piece]) ++piece;
    table.values_[i] =
        LogBetween(u, kShares[piece - 1], kShares[piece], values[piece - 1] + shift, values[piece] + shift) - shift;
  }
  return table;
}

SynthGenerator::SynthGenerator(SynthSpec spec, uint64_t seed)
    : spec_(std::move(spec)), key_(RandomKey(seed, Xxh64(spec_.name.data(), spec_.name.size()))) {
  for (const SynthField& field : spec_.fields) laws_.push_back(QuantileTable::OfRanks(field));
  for (const SynthDense& column : spec_.dense) dense_laws_.push_back(QuantileTable::OfNumbers(column));
  // Crosses of neighbours in order of their effects: what a linear model cannot learn.
  std::vector<size_t> strong;
  for (size_t i = 0; i < spec_.fields.size(); ++i) {
    if (spec_.fields[i].effect >= 0.1 && spec_.fields[i].follows < 0) strong.push_back(i);
  }
  std::stable_sort(strong.begin(), strong.end(),
                   [&](size_t a, size_t b) { return spec_.fields[a].effect > spec_.fields[b].effect; });
  for (size_t i = 0; i + 1 < strong.size() && crosses_.size() < 6; ++i) crosses_.push_back({strong[i], strong[i + 1]});
  Calibrate();
}

double SynthGenerator::Make(uint64_t number, SynthRow* row) const {
  const uint64_t key = RandomKey(RandomKey(key_, kRowStream), number);
  Rng draws(key);
  double group_draws[kGroups];
  for (double& draw : group_draws) draw = draws.Uniform();
  const auto is_missing = [&](double share, int group, uint64_t own) {
    return share > 0 && (group >= 0 ? group_draws[group] : UniformOf(Mix64(own))) < share;
  };
  const size_t fields = spec_.fields.size();
  row->ranks.resize(fields);
  row->histories.resize(fields);
  row->dense.resize(spec_.dense.size());
  for (size_t i = 0; i < fields; ++i) {
    const SynthField& field = spec_.fields[i];
    if (field.is_history) continue;
    // Followers draw the number of the field that they follow.
    const auto stream = static_cast<uint64_t>(field.follows >= 0 ? field.follows : static_cast<int>(i));
    const uint64_t draw = Rng::At(key, kGroups + stream);
    const bool missing = is_missing(field.missing, field.missing_group, draw + i);
    row->ranks[i] = missing ? -1 : RankOf(laws_[i], UniformOf(draw));
  }
  for (size_t i = 0; i < fields; ++i) {
    if (!spec_.fields[i].is_history) continue;
    // A user's past is the same whenever the user comes.
    const auto user = static_cast<uint64_t>(row->ranks[static_cast<size_t>(spec_.user)]);
    const uint64_t past = RandomKey(RandomKey(key_, kHistoryStream), user);
    const auto length = Rng::At(past, 0) % (SynthSpec::kMostHistory + 1);
    row->histories[i].clear();
    for (uint64_t k = 0; k < length; ++k) {
      row->histories[i].push_back(RankOf(laws_[i], UniformOf(Rng::At(past, k + 1))));
    }
  }
  for (size_t i = 0; i < spec_.dense.size(); ++i) {
    const SynthDense& column = spec_.dense[i];
    const uint64_t draw = Rng::At(key, kGroups + fields + i);
    const bool missing = is_missing(column.missing, column.missing_group, draw);
    row->dense[i] = missing ? kMissing : std::floor(dense_laws_[i].At(UniformOf(draw)));
  }
  const double probability = Sigmoid(bias_ + (RawLogit(*row) - raw_mean_) * raw_scale_);
  row->click = UniformOf(Rng::At(key, kGroups + fields + spec_.dense.size())) < probability;
  return probability;
}

uint64_t SynthGenerator::IdOf(size_t field, int64_t rank) const {
  const bool shares = spec_.fields[field].is_history && spec_.fields[field].follows >= 0;
  const auto owner = shares ? static_cast<size_t>(spec_.fields[field].follows) : field;
  return Mix64(RandomKey(kIdStream, owner) + static_cast<uint64_t>(rank));  // not of the seed: other seeds, other rows
}

double SynthGenerator::EffectOf(size_t field, int64_t rank) const {
  const uint64_t bits = Rng::At(RandomKey(RandomKey(key_, kEffectStream), field), static_cast<uint64_t>(rank));
  return NormalOf(bits) / (1 + static_cast<double>(rank) / kSeen);
}

double SynthGenerator::RawLogit(const SynthRow& row) const {
  double logit = 0;
  for (size_t i = 0; i < row.ranks.size(); ++i) {
    const double effect = spec_.fields[i].effect;
    if (effect > 0 && row.ranks[i] >= 0) logit += effect * EffectOf(i, row.ranks[i]);
  }
  constexpr int64_t kCrossed = 50;
  constexpr double kCrossEffect = 0.35;
  for (size_t i = 0; i < crosses_.size(); ++i) {
    const int64_t a = row.ranks[crosses_[i].a], b = row.ranks[crosses_[i].b];
    if (a < 0 || b < 0 || a >= kCrossed || b >= kCrossed) continue;
    const uint64_t stream = RandomKey(RandomKey(key_, kCrossStream), i);
    logit += kCrossEffect * NormalOf(Rng::At(stream, static_cast<uint64_t>(a * kCrossed + b)));
  }
  for (size_t i = 0; i < row.dense.size(); ++i) {
    const double effect = spec_.dense[i].effect;
    if (effect > 0 && !std::isnan(row.dense[i])) logit += effect * (std::log1p(std::fabs(row.dense[i])) - 2);
  }
  return logit;
}

// Finds mean and scale of the logit, and then the bias that gives the click rate.
void SynthGenerator::Calibrate() {
  constexpr uint64_t kRows = kSampleRows / 5;
  std::vector<double> logits(kRows);
  SynthRow row;
  double sum = 0, squares = 0;
  for (uint64_t i = 0; i < kRows; ++i) {
    Make(kSampleStream + i, &row);
    logits[i] = RawLogit(row);
    sum += logits[i];
    squares += logits[i] * logits[i];
  }
  raw_mean_ = sum / kRows;
  const double deviation = std::sqrt(std::max(squares / kRows - raw_mean_ * raw_mean_, 1e-12));
  raw_scale_ = spec_.logit_deviation / deviation;
  double low = -20, high = 20;
  for (int step = 0; step < 60; ++step) {
    bias_ = (low + high) / 2;
    double rate = 0;
    for (const double logit : logits) rate += Sigmoid(bias_ + (logit - raw_mean_) * raw_scale_);
    (rate / kRows < spec_.click_rate ? low : high) = bias_;
  }
}

// Every row counts as a click with its probability and as none with the rest; so the estimate has no noise of labels.
SynthGenerator::Ceiling SynthGenerator::FindCeiling() const {
  std::vector<double> probabilities(kSampleRows);
  SynthRow row;
  for (uint64_t i = 0; i < kSampleRows; ++i) probabilities[i] = Make(kSampleStream + i, &row);
  std::sort(probabilities.begin(), probabilities.end());
  Ceiling ceiling;
  double clicks = 0, others = 0, ordered = 0;
  for (const double p : probabilities) {
    ordered += p * (others + (1 - p) / 2);
    clicks += p;
    others += 1 - p;
    ceiling.logloss -= (p * std::log(p) + (1 - p) * std::log1p(-p)) / static_cast<double>(kSampleRows);
  }
  ceiling.auc = ordered / (clicks * others);
  return ceiling;
}

// The buffers of a batch.
struct SynthData::Storage {
  Batch batch;
  std::vector<std::vector<uint64_t>> ids;
  std::vector<std::vector<uint32_t>> offsets;
  std::vector<float> dense;
  std::vector<float> labels;
};

SynthData::SynthData(std::shared_ptr<const SynthGenerator> generator, SynthOptions options)
    : generator_(std::move(generator)), options_(std::move(options)) {
  PERSIA_CHECK(options_.batch_size > 0 && options_.dense.size() == options_.transforms.size());
  for (const DenseColumnOptions& column : options_.transforms) {
    when_missing_.push_back(column.missing ? static_cast<float>(ApplyTransform(column, *column.missing)) : 0);
  }
}

uint64_t SynthData::RowAt(uint64_t place) const {
  const uint64_t window = options_.shuffle_window;
  if (window <= 1) return options_.first_row + place;
  const uint64_t first = place / window * window;
  const Permutation order(RandomKey(options_.shuffle_key, first), std::min(window, options_.rows - first));
  return options_.first_row + first + order.At(place - first);
}

Result<std::shared_ptr<const Batch>> SynthData::Read(uint64_t batch) const {
  PERSIA_CHECK(batch < batches());
  const uint64_t first = batch * options_.batch_size;
  const auto rows = static_cast<uint32_t>(std::min<uint64_t>(options_.batch_size, options_.rows - first));
  const size_t width = options_.dense.size();
  auto storage = std::make_shared<Storage>();
  storage->ids.resize(options_.ids.size());
  storage->offsets.resize(options_.ids.size());
  storage->dense.resize(rows * width);
  storage->labels.resize(options_.has_labels ? rows : 0);
  const auto& fields = generator_->spec().fields;
  std::vector<uint8_t> is_jagged;
  for (const uint32_t field : options_.ids) is_jagged.push_back(fields[field].is_history || fields[field].missing > 0);
  for (size_t i = 0; i < options_.ids.size(); ++i) {
    storage->ids[i].reserve(rows);
    if (is_jagged[i]) storage->offsets[i].reserve(rows + 1);
    if (is_jagged[i]) storage->offsets[i].push_back(0);
  }
  SynthRow made;
  for (uint32_t row = 0; row < rows; ++row) {
    generator_->Make(RowAt(first + row), &made);
    for (size_t i = 0; i < options_.ids.size(); ++i) {
      const uint32_t field = options_.ids[i];
      std::vector<uint64_t>& ids = storage->ids[i];
      if (fields[field].is_history) {
        for (const int64_t rank : made.histories[field]) ids.push_back(generator_->IdOf(field, rank));
      } else if (made.ranks[field] >= 0) {
        ids.push_back(generator_->IdOf(field, made.ranks[field]));
      }
      if (is_jagged[i]) storage->offsets[i].push_back(static_cast<uint32_t>(ids.size()));
    }
    for (size_t i = 0; i < width; ++i) {
      const double raw = made.dense[options_.dense[i]];
      storage->dense[row * width + i] =
          std::isnan(raw) ? when_missing_[i] : static_cast<float>(ApplyTransform(options_.transforms[i], raw));
    }
    if (options_.has_labels) storage->labels[row] = made.click ? 1.0f : 0.0f;
  }
  Batch& view = storage->batch;
  view.rows = rows;
  view.dense_count = static_cast<uint32_t>(width);
  view.label_count = options_.has_labels ? 1 : 0;
  for (size_t i = 0; i < options_.ids.size(); ++i) view.id_columns.push_back({storage->offsets[i], storage->ids[i]});
  view.dense = storage->dense;
  view.labels = storage->labels;
  return std::shared_ptr<const Batch>(std::move(storage), &view);
}

SynthChunk::SynthChunk(const SynthGenerator& generator, uint64_t first_row, uint32_t rows)
    : ids_(generator.spec().fields.size()), dense_(generator.spec().dense.size()), dense_validity_(dense_.size()) {
  const auto& fields = generator.spec().fields;
  const size_t words = rows / 64 + 1;
  for (Ids& ids : ids_) ids.validity.resize(words);
  for (auto& validity : dense_validity_) validity.resize(words);
  const auto set = [](std::vector<uint64_t>* bits, uint32_t row) { (*bits)[row / 64] |= uint64_t{1} << (row % 64); };
  SynthRow made;
  for (uint32_t row = 0; row < rows; ++row) {
    generator.Make(first_row + row, &made);
    for (size_t i = 0; i < fields.size(); ++i) {
      Ids& ids = ids_[i];
      if (fields[i].is_history) {
        ids.entries.push_back(ids.values.size());
        ids.entries.push_back(made.histories[i].size());
        for (const int64_t rank : made.histories[i]) ids.values.push_back(generator.IdOf(i, rank));
        continue;
      }
      const bool is_there = made.ranks[i] >= 0;
      if (is_there) set(&ids.validity, row);
      ids.values.push_back(is_there ? generator.IdOf(i, made.ranks[i]) : 0);
    }
    for (size_t i = 0; i < dense_.size(); ++i) {
      if (!std::isnan(made.dense[i])) set(&dense_validity_[i], row);
      dense_[i].push_back(made.dense[i]);
    }
    labels_.push_back(made.click);
  }
  view_.rows = rows;
  for (size_t i = 0; i < fields.size(); ++i) {
    const bool is_list = fields[i].is_history;
    view_.ids.push_back({ValueKind::kInteger, ids_[i].values.data(), is_list ? nullptr : ids_[i].validity.data(),
                         ids_[i].values.size(), is_list ? ids_[i].entries.data() : nullptr, nullptr});
  }
  for (size_t i = 0; i < dense_.size(); ++i) {
    view_.dense.push_back({ValueKind::kNumber, dense_[i].data(), dense_validity_[i].data(), rows, nullptr, nullptr});
  }
  view_.labels.push_back({ValueKind::kNumber, labels_.data(), nullptr, rows, nullptr, nullptr});
}

namespace {

// A value of an id field as a text: 8 hexadecimal digits, like the tokens of the owners' files.
void AppendToken(uint64_t id, std::string* text) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (int shift = 60; shift >= 32; shift -= 4) text->push_back(kDigits[(id >> shift) & 15]);
}

void AppendInteger(int64_t value, std::string* text) {
  char digits[24];
  text->append(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
}

}  // namespace

void AppendSynthText(const SynthGenerator& generator, uint64_t first_row, uint32_t rows, std::string* text) {
  const SynthSpec& spec = generator.spec();
  enum class Kind { kLabel, kRow, kHour, kField, kDense, kHistoryLength };
  std::vector<std::pair<Kind, size_t>> columns;
  for (const std::string& name : spec.text_columns) {
    const auto has_name = [&](const auto& column) { return column.name == name; };
    const auto field = std::find_if(spec.fields.begin(), spec.fields.end(), has_name);
    const auto dense = std::find_if(spec.dense.begin(), spec.dense.end(), has_name);
    if (name == spec.label) {
      columns.emplace_back(Kind::kLabel, 0);
    } else if (field != spec.fields.end()) {
      columns.emplace_back(Kind::kField, field - spec.fields.begin());
    } else if (dense != spec.dense.end()) {
      columns.emplace_back(Kind::kDense, dense - spec.dense.begin());
    } else if (name == "uid") {
      columns.emplace_back(Kind::kField, spec.user);
    } else if (name == "his_len") {
      columns.emplace_back(Kind::kHistoryLength, spec.fields.size() - 1);  // all histories have the same length
    } else {
      columns.emplace_back(name == "hour" ? Kind::kHour : Kind::kRow, 0);
    }
  }
  SynthRow row;
  for (uint64_t number = first_row; number < first_row + rows; ++number) {
    generator.Make(number, &row);
    for (size_t i = 0; i < columns.size(); ++i) {
      if (i > 0) text->push_back(spec.delimiter);
      const auto [kind, at] = columns[i];
      if (kind == Kind::kLabel) text->push_back(row.click ? '1' : '0');
      if (kind == Kind::kRow) AppendInteger(static_cast<int64_t>(number), text);
      if (kind == Kind::kDense && !std::isnan(row.dense[at])) AppendInteger(static_cast<int64_t>(row.dense[at]), text);
      if (kind == Kind::kHistoryLength) AppendInteger(static_cast<int64_t>(row.histories[at].size()), text);
      if (kind == Kind::kHour) {
        constexpr int64_t kFirstDay = 14102100;  // YYMMDDHH
        AppendInteger(kFirstDay + static_cast<int64_t>(number / 4'000'000 % 10) * 100 + row.ranks[0], text);
      }
      if (kind != Kind::kField) continue;
      if (!spec.fields[at].is_history) {
        if (row.ranks[at] >= 0) AppendToken(generator.IdOf(at, row.ranks[at]), text);
        continue;
      }
      for (size_t k = 0; k < row.histories[at].size(); ++k) {
        if (k > 0) text->push_back('^');
        AppendToken(generator.IdOf(at, row.histories[at][k]), text);
      }
    }
    text->push_back('\n');
  }
}

}  // namespace persia
