"""Who asks decides how much each number of a layer counts: 2 * sigmoid(NN(user)) ∘ layer.

Swietojanski and Renals, "Learning Hidden Unit Contributions for Unsupervised Speaker Adaptation" (SLT 2014)
for LHUC; Chang et al., "PEPNet: Parameter and Embedding Personalized Network" (KDD 2023, arXiv 2302.01115)
for gates by a network (section 3.2), whose input gets no gradient from them so that it stays what it is.

Legend: B = requests, D = width of what is known of the user, W = width of a layer.
"""

from torch import Tensor, nn


class UserGate(nn.Module):
    """A gate for one layer; it starts near 1."""

    def __init__(self, width: int, hidden: int, out_width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out_width))

    def forward(self, user_BD: Tensor) -> Tensor:
        """Return the gate [B, W], each value between 0 and 2."""
        gate_BW: Tensor = 2 * self.network(user_BD.detach()).sigmoid()
        return gate_BW
