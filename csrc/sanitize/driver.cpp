// Runs the kernels of one instruction set, and the products made of them, on buffers of exactly the
// right size: driver SET [kernels], the latter for the kernels alone. Built and run by run.sh; no
// Python in the process.
#include <cstdio>

#include "sanitize/checks.h"

int main(int argc, char** argv) {
  using namespace synops;
  if (argc < 2) return 1;
  if (!set_isa(argv[1])) {
    std::printf("sanitize: this processor has no %s\n", argv[1]);
    return 0;
  }
  const Isa isa = active_isa();
  sanitize::check_scratch();
  sanitize::check_arrays(isa);
  sanitize::check_pattern(isa);
  sanitize::check_slabs(isa);
  sanitize::check_few_rows(isa);
  sanitize::check_row_blocks(isa);
  sanitize::check_growth(isa);
  sanitize::check_magnitudes(isa);
  sanitize::check_rewiring(isa);
  sanitize::check_units(isa);
  sanitize::check_tokens(isa);
  sanitize::check_linear_token_stats(isa);
  sanitize::check_attention(isa);
  sanitize::check_lif(isa);
  sanitize::check_leaky_rnn(isa);
  sanitize::check_recurrent_lif(isa);
  sanitize::check_esn(isa);
  sanitize::check_izhikevich(isa);
  sanitize::check_ei_reservoir(isa);
  sanitize::check_stdp(isa);
  sanitize::check_delta_rule(isa);
  sanitize::check_local_rules(isa);
  sanitize::check_hopfield(isa);
  sanitize::check_soft_hebb(isa);
  sanitize::check_three_factor(isa);
  sanitize::check_three_factor_sequence(isa);
  if (argc == 2) sanitize::check_products();
  std::printf("sanitize: %s ok\n", argv[1]);
}
