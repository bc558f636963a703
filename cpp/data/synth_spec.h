// What synthetic data looks like: fields, cardinalities, skew, missing values and click rates of public data sets.
//
// The figures are those of the data sets' published statistics. Criteo: 13 counts, 26 tokens (Kaggle's display
// advertising challenge); Avazu: 21 tokens and the hour; Taobao: users, ads and histories (Tianchi's ad display data).
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace persia {

// An id field. Its values are drawn by rank: the most frequent one has the share top1, the first ten top10, and so on.
struct SynthField {
  std::string name;
  double distinct = 1;
  double top1 = 0, top10 = 0, top100 = 0;
  double effect = 0;         // standard deviation of its effect on the logit, over values that are frequent
  double missing = 0;        // share of rows without it
  int missing_group = -1;    // fields of one group are missing together
  int follows = -1;          // the field whose draw it shares: frequent values come with frequent values
  bool is_history = false;   // a list of up to kMostHistory values, those of a user before
};

struct SynthDense {
  std::string name;
  double missing = 0;
  int missing_group = -1;
  double least = 0;
  double quantiles[6] = {};  // at 5, 25, 50, 75, 95 and 99 %
  double most = 0;
  double effect = 0;
};

struct SynthSpec {
  static constexpr uint32_t kMostHistory = 20;

  std::string name;
  std::string label;
  double click_rate = 0;
  double logit_deviation = 0;  // standard deviation of the true logit: it decides the best possible AUC
  std::vector<SynthField> fields;
  std::vector<SynthDense> dense;
  int user = -1;               // the field that histories belong to

  // How the owner's files look: the names of all columns, in order; "" separators of ids are none.
  char delimiter = ',';
  bool has_header = true;
  std::vector<std::string> text_columns;
};

// The data set of this name, with `ids` distinct ids in all (0: as many as the real one has), spread over its large
// fields as they are there. Null for an unknown name.
const char* const kSynthNames[] = {"criteo", "avazu", "taobao", "criteo-syn"};
bool MakeSynthSpec(const std::string& name, double ids, SynthSpec* spec);

}  // namespace persia
