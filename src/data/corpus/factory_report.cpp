#include "data/corpus/factory_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker::corpus {
namespace {

using Json = nlohmann::json;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  return out;
}

std::string grouped(uint64_t n) {
  std::string digits = std::to_string(n), out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i && (digits.size() - i) % 3 == 0) out += "\u2009";
    out += digits[i];
  }
  return out;
}

std::string bar(double share) {
  return fmt::format("<span class=bar style=\"width:{:.2f}%\"></span>", std::clamp(share, 0.0, 1.0) * 100);
}

// Light bars: all documents; dark: those that the stage dropped.
std::string histogram(const Json& h) {
  const auto& all = h.at("all");
  uint64_t most = 1;
  for (const auto& n : all) most = std::max(most, n.get<uint64_t>());
  constexpr int kWidth = 9, kHeight = 46;
  std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" width={} height={}>", kWidth * all.size(),
                                kHeight, kWidth * all.size(), kHeight);
  for (size_t i = 0; i < all.size(); ++i) {
    const auto n = all[i].get<uint64_t>(), gone = h.at("dropped")[i].get<uint64_t>();
    auto column = [&](uint64_t count, const char* color) {
      const double high =
          count ? std::max(1.0, kHeight * static_cast<double>(count) / static_cast<double>(most)) : 0;
      out += fmt::format(
          "<rect x={} y={:.1f} width={} height={:.1f} fill=\"{}\"><title>{}: {}, dropped {}</title></rect>",
          kWidth * i, kHeight - high, kWidth - 1, high, color, escaped(h.at("bins")[i].get<std::string>()), n,
          gone);
    };
    column(n, "#b9cbe4");
    column(gone, "#b4502d");
  }
  return out + "</svg>";
}

}  // namespace

std::string report_page(std::string_view report_json) {
  const Json r = Json::parse(report_json, nullptr, false);
  try {
    const auto documents = r.at("documents_in").get<uint64_t>();
    const double all = std::max<double>(1, static_cast<double>(documents));
    std::string out = fmt::format(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{0}</title><style>"
        "body{{font:15px/1.45 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}}"
        "table{{border-collapse:collapse;margin:.6em 0}}td,th{{padding:.15em .8em .15em "
        "0;text-align:left;vertical-align:top}}"
        "td.n,th.n{{text-align:right;font-variant-numeric:tabular-nums}}h2{{margin-top:1.8em;border-bottom:"
        "1px solid #ddd}}"
        ".w{{width:16em;background:#f2f2f2}}.bar{{display:block;height:.9em;background:#4a7ab5}}"
        ".h{{display:inline-block;margin:.4em 1.6em .4em 0}}.h "
        "b{{display:block;font-weight:600}}small{{color:#666}}"
        "blockquote{{margin:.2em 0 .8em 1em;padding-left:.8em;border-left:3px solid "
        "#ddd;white-space:pre-wrap;font-size:13px}}"
        "</style><h1>{0}</h1><p>Version <code>{1}</code></p><table>",
        escaped(r.at("name").get<std::string>()), escaped(r.at("version").get<std::string>()));
    for (const auto& [key, label] : std::initializer_list<std::pair<const char*, const char*>>{
             {"files", "files read"},
             {"left_out", "files left out: their names say nothing"},
             {"documents_in", "documents in"},
             {"quarantined", "in quarantine"},
             {"documents_out", "documents out"},
             {"text_bytes_in", "bytes of text in"},
             {"text_bytes_out", "bytes of text out"},
             {"tokens", "tokens"},
             {"spans_removed", "repeated lines removed"}})
      if (r.contains(key))
        out += fmt::format("<tr><td>{}<td class=n>{}", label, grouped(r[key].get<uint64_t>()));
    out +=
        "</table><h2>Why documents were dropped</h2><table><tr><th>reason<th class=n>documents<th "
        "class=n>bytes<th>";
    for (const auto& reason : r.at("reasons"))
      out += fmt::format("<tr><td>{}<td class=n>{}<td class=n>{}<td class=w>{}",
                         escaped(reason.at("reason").get<std::string>()),
                         grouped(reason.at("documents").get<uint64_t>()),
                         grouped(reason.at("bytes").get<uint64_t>()),
                         bar(static_cast<double>(reason.at("documents").get<uint64_t>()) / all));
    out +=
        "</table><h2>Sources</h2><table><tr><th>source<th class=n>in<th class=n>out<th class=n>bytes out<th "
        "class=n>tokens";
    for (const auto& s : r.at("sources"))
      out += fmt::format(
          "<tr><td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
          escaped(s.at("name").get<std::string>()), grouped(s.at("documents_in").get<uint64_t>()),
          grouped(s.at("documents_out").get<uint64_t>()), grouped(s.at("text_bytes_out").get<uint64_t>()),
          grouped(s.at("tokens").get<uint64_t>()));
    out += "</table>";
    auto counted = [&](const char* key, const char* title, const char* what) {
      if (r.at(key).empty()) return;
      out +=
          fmt::format("<h2>{}</h2><table><tr><th>{}<th class=n>documents<th class=n>bytes<th class=n>tokens",
                      title, what);
      for (const auto& entry : r[key])
        out += fmt::format(
            "<tr><td>{}<td class=n>{}<td class=n>{}<td class=n>{}",
            escaped(entry.at("name").get<std::string>()), grouped(entry.at("documents").get<uint64_t>()),
            grouped(entry.at("text_bytes").get<uint64_t>()), grouped(entry.at("tokens").get<uint64_t>()));
      out += "</table>";
    };
    counted("labels", "Labels of what was kept", "label");
    counted("languages", "Languages of what was kept", "language");
    if (!r.at("duplicates").empty()) {
      out +=
          "<h2>Duplicates by source</h2><table><tr><th>dropped from<th>because of one in<th "
          "class=n>documents";
      for (const auto& d : r["duplicates"])
        out +=
            fmt::format("<tr><td>{}<td>{}<td class=n>{}", escaped(d.at("dropped").get<std::string>()),
                        escaped(d.at("kept").get<std::string>()), grouped(d.at("documents").get<uint64_t>()));
      out += "</table>";
    }
    if (!r.at("signals").empty()) {
      out +=
          "<h2>Signals</h2><p><small>All documents that came to the stage, and in the darker colour those it "
          "dropped.</small><p>";
      for (const auto& h : r["signals"])
        out += fmt::format("<span class=h><b>{}</b>{}</span>", escaped(h.at("signal").get<std::string>()),
                           histogram(h));
    }
    if (r.contains("packing") && r["packing"].is_object()) {
      const auto& p = r["packing"];
      out += fmt::format(
          "<h2>Packing into rows of {} tokens</h2><table><tr><th><th class=n>rows<th class=n>padding<th "
          "class=n>documents cut",
          p.at("length").get<uint64_t>());
      for (const auto& [key, label] : std::initializer_list<std::pair<const char*, const char*>>{
               {"concatenate", "concatenate"}, {"best_fit", "best fit"}})
        out += fmt::format("<tr><td>{}<td class=n>{}<td class=n>{:.3f} %<td class=n>{}", label,
                           grouped(p.at(key).at("rows").get<uint64_t>()),
                           p.at(key).at("padding").get<double>() * 100,
                           grouped(p.at(key).at("documents_cut").get<uint64_t>()));
      out += "</table>";
    }
    out += "<h2>Samples of each reason</h2>";
    for (const auto& reason : r.at("reasons")) {
      if (reason.at("samples").empty()) continue;
      out += fmt::format("<h3>{}</h3>", escaped(reason.at("reason").get<std::string>()));
      for (const auto& s : reason["samples"]) {
        out += fmt::format("<small>{}", escaped(s.at("id").get<std::string>()));
        if (s.contains("matched"))
          out += fmt::format(" matched {} (similarity {:.2f})", escaped(s["matched"].get<std::string>()),
                             s.at("similarity").get<double>());
        out += fmt::format("</small><blockquote>{}</blockquote>", escaped(s.at("text").get<std::string>()));
      }
    }
    return out + "</html>\n";
  } catch (const Json::exception& e) {
    fail(ErrorKind::kData, "no report of a data build: {}", e.what());
  }
}

}  // namespace stoker::corpus
