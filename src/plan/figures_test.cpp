#include "plan/figures.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace stoker::plan {
namespace {

TEST(Figures, EveryOneHasASourceAndADate) {
  const FigureBook book = FigureBook::built_in();
  for (const auto& [key, figure] : book.all()) {
    EXPECT_FALSE(figure.source.empty()) << key;
    EXPECT_FALSE(figure.date.empty()) << key;
  }
}

TEST(Figures, NegativeAndUnorderedAreRefused) {
  const std::string head = "key,low,mid,high,unit,kind,date,source\n";
  EXPECT_THROW(FigureBook::read("f", head + "price.x,-1,2,3,USD,assumption,2024,me\n"), Error);
  EXPECT_THROW(FigureBook::read("f", head + "price.x,1,5,3,USD,assumption,2024,me\n"), Error);
  EXPECT_THROW(FigureBook::read("f", head + "price.x,1,2,3,USD,assumption,2024,\n"), Error);
  EXPECT_THROW(FigureBook::read("f", head + "a,1,2,3,USD,k,2024,s\na,1,2,3,USD,k,2024,s\n"), Error);
  EXPECT_EQ(FigureBook::read("f", head + "life,5,4,3,years,assumption,2024,me\n").at("life").mid, 4);
  FigureBook book = FigureBook::built_in();
  EXPECT_THROW(book.set("rent.egress_per_gb", -0.1), Error);
  book.set("rent.egress_per_gb", 0.05);
  EXPECT_EQ(book.at("rent.egress_per_gb").high, 0.05);
}

TEST(Figures, NearestNames) {
  try {
    FigureBook::built_in().at("rent.egress_per_tb");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("rent.egress_per_gb"), std::string::npos);
  }
}

}  // namespace
}  // namespace stoker::plan
