// The checks of this folder; each ends the program at the first error.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace synops::sanitize {

// The kernels of one instruction set, in buffers of exactly the right size, against plain loops.
void check_arrays(Isa isa);
void check_pattern(Isa isa);
void check_slabs(Isa isa);
void check_few_rows(Isa isa);
void check_row_blocks(Isa isa);
void check_growth(Isa isa);
void check_magnitudes(Isa isa);
void check_rewiring(Isa isa);
void check_units(Isa isa);
void check_tokens(Isa isa);
void check_linear_token_stats(Isa isa);
void check_attention(Isa isa);
void check_lif(Isa isa);
void check_leaky_rnn(Isa isa);
void check_recurrent_lif(Isa isa);
void check_esn(Isa isa);
void check_izhikevich(Isa isa);
void check_ei_reservoir(Isa isa);
void check_stdp(Isa isa);
void check_delta_rule(Isa isa);
void check_local_rules(Isa isa);
void check_hopfield(Isa isa);
void check_soft_hebb(Isa isa);
void check_three_factor(Isa isa);
void check_three_factor_sequence(Isa isa);

// product() and gradients() under the active instruction set.
void check_products();

// The real common/scratch.h, which has a stand-in here.
void check_scratch();

// What torch::stable::get_num_threads() answers from now on.
void set_threads(uint32_t threads);

}  // namespace synops::sanitize
