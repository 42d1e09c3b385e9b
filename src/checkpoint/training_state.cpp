#include "checkpoint/training_state.h"

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "checkpoint/record.h"

namespace stoker::checkpoint {
namespace {

using Json = nlohmann::ordered_json;

class Fields {
 public:
  Fields(std::string_view text, const std::string& where)
      : j_(Json::parse(text, nullptr, false)), where_(where) {
    if (j_.is_discarded() || !j_.is_object()) fail(ErrorKind::kData, "'{}': not a JSON object", where_);
  }
  const Json& need(const char* key) const {
    const auto it = j_.find(key);
    if (it == j_.end()) fail(ErrorKind::kData, "'{}': field '{}' is missing", where_, key);
    return *it;
  }
  uint64_t whole(const char* key) const {
    const Json& v = need(key);
    if (!v.is_number_unsigned())
      fail(ErrorKind::kData, "'{}': field '{}' is {}: expected a whole number of at least 0", where_, key,
           v.dump());
    return v.get<uint64_t>();
  }
  int64_t step(const char* key) const {
    const uint64_t v = whole(key);
    if (v >> 63) fail(ErrorKind::kData, "'{}': field '{}' is {}: too large", where_, key, v);
    return static_cast<int64_t>(v);
  }
  std::string text(const char* key) const {
    const Json& v = need(key);
    if (!v.is_string()) fail(ErrorKind::kData, "'{}': field '{}' is not a string", where_, key);
    return v.get<std::string>();
  }
  Hash128 hash(const char* key) const { return parse_hash128(text(key), where_); }
  double exact(const char* key) const {
    const std::string s = text(key);
    char* end = nullptr;
    const double v = std::strtod(s.c_str(), &end);
    if (s.empty() || end != s.c_str() + s.size())
      fail(ErrorKind::kData, "'{}': field '{}' is \"{}\": expected a number", where_, key, s);
    return v;
  }
  Json& json() { return j_; }
  const std::string& where() const { return where_; }

 private:
  Json j_;
  std::string where_;
};

std::string exact(double v) { return fmt::format("{:a}", v); }

}  // namespace

std::string to_json(const TrainingState& s) {
  Json trainer = Json::parse(s.trainer, nullptr, false);
  STOKER_CHECK(trainer.is_object(), "TrainingState::trainer is not a JSON object");
  const Json j = {{"step", s.step},
                  {"next_batch", s.next_batch},
                  {"tokens_seen", s.tokens_seen},
                  {"manifest_hash", s.manifest_hash},
                  {"seed", s.seed},
                  {"recipe", s.recipe},
                  {"recipe_hash", s.recipe_hash.hex()},
                  {"model_config", s.model_config},
                  {"software", s.software},
                  {"trainer", std::move(trainer)}};
  return j.dump(1) + "\n";
}

TrainingState parse_training_state(std::string_view text, const std::string& where) {
  const Fields f(text, where);
  TrainingState s;
  s.step = f.step("step");
  s.next_batch = f.whole("next_batch");
  s.tokens_seen = f.whole("tokens_seen");
  s.manifest_hash = f.text("manifest_hash");
  s.seed = f.whole("seed");
  s.recipe = f.text("recipe");
  s.recipe_hash = f.hash("recipe_hash");
  s.model_config = f.text("model_config");
  s.software = f.text("software");
  if (!f.need("trainer").is_object()) fail(ErrorKind::kData, "'{}': field 'trainer' is not an object", where);
  s.trainer = f.need("trainer").dump();
  return s;
}

std::string to_json(const ReplayRecord& r) {
  Json j = {{"step", r.step}, {"loss", exact(r.loss)}, {"gradient_norm", exact(r.gradient_norm)}};
  if (r.weights_hash) j["weights_hash"] = r.weights_hash->hex();
  j["hash"] = hash128(j.dump()).hex();
  return j.dump(1) + "\n";
}

ReplayRecord parse_replay_record(std::string_view text, const std::string& where) {
  Fields f(text, where);
  const Hash128 said = f.hash("hash");
  f.json().erase("hash");
  if (hash128(f.json().dump(-1, ' ', false, Json::error_handler_t::replace)) != said)
    fail(ErrorKind::kData, "'{}': its contents do not match its hash: it is damaged", where);
  ReplayRecord r;
  r.step = f.step("step");
  r.loss = f.exact("loss");
  r.gradient_norm = f.exact("gradient_norm");
  if (f.json().contains("weights_hash")) r.weights_hash = f.hash("weights_hash");
  return r;
}

}  // namespace stoker::checkpoint
