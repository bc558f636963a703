#include "data/synth_spec.h"

#include <algorithm>
#include <utility>

namespace persia {
namespace {

// name, distinct, share of the most frequent 1, 10, 100, effect, missing, missing together with, follows, a history
std::vector<SynthField> CriteoFields() {
  return {
      {"C1", 1460, 0.500, 0.908, 0.992, 0.06, 0.000, -1, -1, false},
      {"C2", 583, 0.111, 0.409, 0.864, 0.39, 0.000, -1, -1, false},
      {"C3", 10131227, 0.025, 0.105, 0.273, 0.63, 0.034, 0, -1, false},
      {"C4", 2202608, 0.036, 0.171, 0.391, 0.58, 0.034, 0, -1, false},
      {"C5", 305, 0.665, 0.977, 1.000, 0.0, 0.000, -1, -1, false},
      {"C6", 24, 0.452, 1.000, 1.000, 0.12, 0.120, -1, -1, false},
      {"C7", 12517, 0.022, 0.091, 0.284, 0.78, 0.000, -1, -1, false},
      {"C8", 633, 0.582, 0.953, 0.999, 0.0, 0.000, -1, -1, false},
      {"C9", 3, 0.901, 1.000, 1.000, 0.21, 0.000, -1, -1, false},
      {"C10", 93145, 0.224, 0.280, 0.426, 0.38, 0.000, -1, -1, false},
      {"C11", 5683, 0.033, 0.135, 0.398, 0.67, 0.000, -1, -1, false},
      {"C12", 8351593, 0.025, 0.120, 0.302, 0.6, 0.034, 0, -1, false},
      {"C13", 3194, 0.033, 0.154, 0.446, 0.65, 0.000, -1, -1, false},
      {"C14", 27, 0.348, 0.984, 1.000, 0.29, 0.000, -1, -1, false},
      {"C15", 14992, 0.015, 0.092, 0.413, 0.57, 0.000, -1, -1, false},
      {"C16", 5461306, 0.025, 0.121, 0.339, 0.57, 0.034, 0, -1, false},
      {"C17", 10, 0.457, 1.000, 1.000, 0.36, 0.000, -1, -1, false},
      {"C18", 5652, 0.032, 0.222, 0.608, 0.46, 0.000, -1, -1, false},
      {"C19", 2173, 0.610, 0.723, 0.877, 0.13, 0.439, 1, -1, false},
      {"C20", 4, 0.341, 1.000, 1.000, 0.07, 0.439, 1, -1, false},
      {"C21", 7046547, 0.025, 0.121, 0.319, 0.59, 0.034, 0, -1, false},
      {"C22", 18, 0.561, 1.000, 1.000, 0.1, 0.763, -1, -1, false},
      {"C23", 15, 0.439, 0.995, 1.000, 0.31, 0.000, -1, -1, false},
      {"C24", 286181, 0.056, 0.308, 0.563, 0.45, 0.034, 0, -1, false},
      {"C25", 105, 0.259, 0.933, 1.000, 0.15, 0.439, 1, -1, false},
      {"C26", 142572, 0.074, 0.251, 0.489, 0.27, 0.439, 1, -1, false},
  };
}

// name, missing, missing together with, least, quantiles, most, effect
std::vector<SynthDense> CriteoDense() {
  return {
      {"I1", 0.454, 2, 0, {0, 0, 1, 3, 15, 40}, 199, 0},
      {"I2", 0.000, -1, -2, {-1, 0, 3, 33, 494, 2372.9}, 6995, 0},
      {"I3", 0.213, -1, 0, {1, 2, 6, 17, 80, 226}, 31567, 0.1},
      {"I4", 0.218, 3, 0, {0, 2, 4, 10, 25, 40}, 96, 0},
      {"I5", 0.025, -1, 0, {2, 312, 2796, 10084.2, 60451.1, 356734.2}, 1669366, 0.25},
      {"I6", 0.230, -1, 0, {0, 8, 32, 99, 460, 1239.3}, 5515, 0.3},
      {"I7", 0.046, 4, 0, {0, 1, 3, 12, 66, 218.6}, 1884, 0.3},
      {"I8", 0.000, -1, 0, {0, 2, 7, 19, 41.4, 48}, 375, 0},
      {"I9", 0.046, 4, 0, {1, 10, 38, 109, 435.2, 953.8}, 5820, 0.1},
      {"I10", 0.454, 2, 0, {0, 0, 1, 1, 2, 3}, 6, 0},
      {"I11", 0.046, 4, 0, {0, 1, 1, 3, 11, 26}, 93, 0.3},
      {"I12", 0.765, -1, 0, {0, 0, 0, 1, 3, 19.9}, 69, 0},
      {"I13", 0.218, 3, 0, {0, 2, 4, 10, 30, 48}, 404, 0.2},
  };
}

// name, distinct, share of the most frequent 1, 10, 100, effect, missing, missing together with, follows, a history
std::vector<SynthField> AvazuFields() {
  return {
      {"hour_of_day", 24, 0.065, 0.55, 1, 0.1, 0, -1, -1, false},
      {"C1", 7, 0.919, 1.000, 1.000, 0.07, 0, -1, -1, false},
      {"banner_pos", 7, 0.720, 1.000, 1.000, 0.04, 0, -1, -1, false},
      {"site_id", 4737, 0.361, 0.700, 0.910, 0.45, 0, -1, -1, false},
      {"site_domain", 7745, 0.374, 0.741, 0.937, 0.4, 0, -1, 3, false},
      {"site_category", 26, 0.409, 0.998, 1.000, 0.17, 0, -1, 3, false},
      {"app_id", 8552, 0.639, 0.801, 0.948, 0.46, 0, -1, -1, false},
      {"app_domain", 559, 0.674, 0.967, 1.000, 0.3, 0, -1, 6, false},
      {"app_category", 36, 0.647, 0.998, 1.000, 0.18, 0, -1, 6, false},
      {"device_id", 2686408, 0.825, 0.827, 0.829, 0.15, 0, -1, -1, false},
      {"device_ip", 6729486, 0.005, 0.025, 0.073, 0.2, 0, -1, -1, false},
      {"device_model", 8251, 0.061, 0.243, 0.637, 0.33, 0, -1, -1, false},
      {"device_type", 5, 0.923, 1.000, 1.000, 0.06, 0, -1, 13, false},
      {"device_conn_type", 4, 0.863, 1.000, 1.000, 0.18, 0, -1, -1, false},
      {"C14", 2626, 0.024, 0.177, 0.644, 0.42, 0, -1, -1, false},
      {"C15", 8, 0.933, 1.000, 1.000, 0.13, 0, -1, -1, false},
      {"C16", 9, 0.943, 1.000, 1.000, 0.14, 0, -1, -1, false},
      {"C17", 435, 0.112, 0.342, 0.860, 0.41, 0, -1, 14, false},
      {"C18", 4, 0.419, 1.000, 1.000, 0.28, 0, -1, -1, false},
      {"C19", 68, 0.301, 0.786, 1.000, 0.3, 0, -1, -1, false},
      {"C20", 172, 0.468, 0.795, 0.995, 0.27, 0, -1, -1, false},
      {"C21", 60, 0.220, 0.772, 1.000, 0.34, 0, -1, -1, false},
  };
}

// name, distinct, share of the most frequent 1, 10, 100, effect, missing, missing together with, follows, a history
std::vector<SynthField> TaobaoFields() {
  return {
      {"user", 1141729, 0.0002, 0.001, 0.006, 0.25, 0, -1, -1, false},
      {"cms_segid", 97, 0.33, 0.62, 1, 0.08, 0.057, 0, -1, false},
      {"cms_group_id", 13, 0.22, 0.95, 1, 0.08, 0.057, 0, 1, false},
      {"final_gender_code", 2, 0.64, 1, 1, 0.03, 0.057, 0, -1, false},
      {"age_level", 7, 0.31, 1, 1, 0.05, 0.057, 0, 1, false},
      {"pvalue_level", 3, 0.64, 1, 1, 0.03, 0.547, 1, -1, false},
      {"shopping_level", 3, 0.9, 1, 1, 0.02, 0.057, 0, -1, false},
      {"occupation", 2, 0.94, 1, 1, 0.02, 0.057, 0, -1, false},
      {"new_user_class_level", 4, 0.45, 1, 1, 0.03, 0.308, 2, -1, false},
      {"adgroup_id", 846811, 0.002, 0.012, 0.06, 0.3, 0, -1, -1, false},
      {"cate_id", 6769, 0.1, 0.35, 0.68, 0.2, 0, -1, 9, false},
      {"campaign_id", 423436, 0.003, 0.02, 0.08, 0.15, 0, -1, 9, false},
      {"customer", 255875, 0.004, 0.025, 0.1, 0.15, 0, -1, 9, false},
      {"brand", 99815, 0.03, 0.1, 0.25, 0.15, 0.31, 3, 9, false},
      {"pid", 2, 0.61, 1, 1, 0.1, 0, -1, -1, false},
      {"btag_his", 4, 0.95, 1, 1, 0, 0, -1, -1, true},
      {"cate_his", 6769, 0.1, 0.35, 0.68, 0, 0, -1, 10, true},
      {"brand_his", 99815, 0.03, 0.1, 0.25, 0, 0, -1, 13, true},
  };
}

std::vector<std::string> Names(const std::string& prefix, int first, int last) {
  std::vector<std::string> names;
  for (int i = first; i <= last; ++i) names.push_back(prefix + std::to_string(i));
  return names;
}

void Append(std::vector<std::string>* to, const std::vector<std::string>& more) {
  to->insert(to->end(), more.begin(), more.end());
}

// Gives the large fields together so many more or fewer values that the sum is right.
void Scale(double ids, std::vector<SynthField>* fields) {
  constexpr double kLarge = 1000;
  double large = 0, small = 0;
  for (const SynthField& field : *fields) {
    if (!field.is_history) (field.distinct >= kLarge ? large : small) += field.distinct;
  }
  const double factor = std::max(ids - small, 0.0) / large;
  for (SynthField& field : *fields) {
    if (field.distinct >= kLarge) field.distinct = std::max(1.0, field.distinct * factor);
  }
}

}  // namespace

bool MakeSynthSpec(const std::string& name, double ids, SynthSpec* spec) {
  *spec = {};
  spec->name = name;
  if (name == "criteo" || name == "criteo-syn") {
    spec->label = "label";
    spec->click_rate = 0.2562;
    spec->logit_deviation = 1.5;
    spec->fields = CriteoFields();
    spec->dense = CriteoDense();
    spec->delimiter = '\t';
    spec->has_header = false;
    spec->text_columns = {"label"};
    Append(&spec->text_columns, Names("I", 1, 13));
    Append(&spec->text_columns, Names("C", 1, 26));
  } else if (name == "avazu") {
    spec->label = "click";
    spec->click_rate = 0.1698;
    spec->logit_deviation = 1.3;
    spec->fields = AvazuFields();
    spec->text_columns = {"id", "click", "hour"};
    for (size_t i = 1; i < spec->fields.size(); ++i) spec->text_columns.push_back(spec->fields[i].name);
  } else if (name == "taobao") {
    spec->label = "clk";
    spec->click_rate = 0.0514;
    spec->logit_deviation = 0.55;
    spec->fields = TaobaoFields();
    spec->dense = {{"price", 0, -1, 0.01, {9, 57, 168, 459, 1350, 6000}, 1e8, 0.1}};
    spec->user = 0;
    spec->text_columns = {"clk", "uid"};
    for (size_t i = 1; i < spec->fields.size(); ++i) {
      if (spec->fields[i].name == "pid") spec->text_columns.push_back("price");
      spec->text_columns.push_back(spec->fields[i].name);
      if (spec->fields[i].name == "pid") spec->text_columns.push_back("his_len");
    }
  } else {
    return false;
  }
  if (ids > 0) Scale(ids, &spec->fields);
  return true;
}

}  // namespace persia
