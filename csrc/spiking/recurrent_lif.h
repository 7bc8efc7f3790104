// recurrent_lif: the raw-pointer kernels of products with a recurrent weight (bodies in
// recurrent_lif.inc). What neurons do with their currents is lif's.
//
// All numbers are in the arithmetic type, float32 or float64: `wide` says which.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// What is not 0 in rows of n numbers: the places of row r from index[r * n] on, ascending. A row
// with a negative count is multiplied as a whole.
struct Lists {
  int64_t n;
  int32_t* index;
  void* value;  // likewise; null: all 1
  int64_t* count;
};

// out[r] = scale * out[r] + (row r of the left operand) times a matrix (n x n), for `rows` rows.
struct Product {
  int64_t rows;
  Lists left;
  const void* whole;  // the left operand, rows n apart: read where a count is negative
  double scale;       // of rows with lists; 1 for the others
  void* out;
  int64_t ld;  // from row to row of out
};

// The matrix of a Pattern by rows: entries of row i are [ptr[i], ptr[i + 1]).
struct Compressed {
  const int32_t* ptr;
  const int32_t* index;
  const void* value;
};

// The events of a block of rows, by the neuron that they come from: those of neuron j are
// [ptr[j], ptr[j + 1]), in ascending order.
struct Events {
  int64_t n;
  const int64_t* ptr;
  const int32_t* row;
  const void* value;  // null: all 1
};

struct RecurrentLifKernels {
  // Columns of a panel. A matrix (n x n) is packed as panels of its columns, n rows each, zeros
  // behind the last column: a panel stays in L2 while all rows of a step pass over it.
  int64_t (*width)(DType wide);
  // Panels [p0, p1) of a matrix or of its transpose; whether all numbers in them are finite.
  bool (*pack)(DType wide, const void* matrix, int64_t n, bool transposed, int64_t p0, int64_t p1,
               void* panels);
  // And back, of the transpose.
  void (*unpack)(DType wide, const void* panels, int64_t n, int64_t p0, int64_t p1, void* matrix);
  // The product in the columns of panels [p0, p1).
  void (*multiply)(DType wide, const Product& p, const void* panels, int64_t p0, int64_t p1);
  // Places and (unless null) values of what is not 0 among n numbers a[i] - b * c[i], or among a[i]
  // where c is null; their number, or -1 where there are more than `most`.
  int64_t (*list)(DType wide, const void* a, double b, const void* c, int64_t n, int64_t most,
                  int32_t* index, void* value);
  // The same of membranes that fire.
  int64_t (*list_fired)(DType wide, const void* membrane, const void* threshold, bool inclusive,
                        int64_t n, int32_t* index);
  // panel[j] += the sum of grad[row] over the events of neuron j, in the columns of panel p: grad
  // is (rows x n); room for (rows x width).
  void (*add_outer)(DType wide, const Events& events, const void* grad, int64_t rows, int64_t p,
                    void* panel, void* room);
  // a[i] += b[i].
  void (*add)(DType wide, const void* b, int64_t n, void* a);
};

struct RecurrentEntriesKernels {
  // The product with a Pattern, of the rows that have lists.
  void (*scatter)(DType wide, const Product& p, const Compressed& matrix);
  // And of those that have none, by the columns of the same. room: (n x 64).
  void (*gather)(DType wide, const Product& p, const Compressed& by_columns, void* room);
  // values[k] += the sum of grad[row, index[k]] over the events of neuron j, for the entries of
  // neurons [j0, j1) of a Pattern by columns; grad is (rows x n).
  void (*add_entries)(DType wide, const Events& events, const void* grad, int64_t j0, int64_t j1,
                      const Compressed& by_columns, void* values);
};

SYNOPS_KERNELS(RecurrentLifKernels, recurrent_lif)
SYNOPS_KERNELS(RecurrentEntriesKernels, recurrent_entries)

}  // namespace synops
