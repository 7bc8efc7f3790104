"""Entropy: statistics of softmaxes that nobody has to materialise, and losses that use them."""

from ._attention_pick import attention_pick
from ._attention_with_stats import attention_with_stats
from ._bnpo_advantage import bnpo_advantage
from ._covariance_select import covariance_select
from ._head_scores import HeadScores, head_scores
from ._linear_token_stats import linear_token_stats
from ._policy_loss import PolicyMetrics, policy_loss
from ._stats import Stats
from ._token_stats import token_stats

__all__ = [
    "HeadScores",
    "PolicyMetrics",
    "Stats",
    "attention_pick",
    "attention_with_stats",
    "bnpo_advantage",
    "covariance_select",
    "head_scores",
    "linear_token_stats",
    "policy_loss",
    "token_stats",
]
