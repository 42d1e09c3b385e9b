// plan/matrix_product.h
// Time of one matrix product [m,k] x [k,n]: the longer of its arithmetic, at a rate that falls for narrow
// matrices, and of operands and result through memory; and a fixed cost of the kernel.
// Numbers     seconds; rates are achievable ones, operands and result of 2 bytes an element.
#pragma once

namespace stoker::plan {

struct ProductRates {
  double arithmetic = 1e12, memory = 1e12;  // FLOP/s, bytes/s
  double kernel = 5e-6;                     // seconds
  double tile = 96;                         // width at which a product reaches half its rate
};

double product_seconds(double m, double n, double k, const ProductRates& rates);

// The larger of two, without the kink: within 2^(1/8) of it.
double soft_max(double a, double b);

}  // namespace stoker::plan
