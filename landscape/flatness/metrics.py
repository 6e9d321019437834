"""Every flatness metric by name: what it is, where it comes from, what it costs, and what a larger number means.

θ are the weights, L the risk, g its gradient, H its Hessian; ``w_i`` is a filter of the weights, ``d`` a
filter-normalized Gaussian direction. Costs are in passes over the data; a Hessian-vector product is about six forward
passes.
"""

from __future__ import annotations

from landscape.flatness.average_case import basin_radius, filter_normalized_rise, isotropic_rise, pac_bayes_sigma
from landscape.flatness.curvature import gauss_newton_metrics, hessian_metrics
from landscape.flatness.first_order import gradient_norm_metrics
from landscape.flatness.invariant import filter_normalized_trace, fisher_rao_norm, relative_flatness
from landscape.flatness.measurement import Metric
from landscape.flatness.planes import plane_metrics
from landscape.flatness.worst_case import adaptive_sharpness, epsilon_sharpness, m_sharpness, sam_sharpness

__all__ = ["METRICS"]

METRICS: dict[str, Metric] = {
    # curvature
    "largest_eigenvalue": Metric(
        hessian_metrics, "λ_max(H), and the next ones by rank", "Keskar et al., ICLR 2017; Lanczos, 1950", "sharper",
        "10 to 30 Hessian products", "changes", part="largest_eigenvalue",
    ),
    "smallest_eigenvalue": Metric(
        hessian_metrics, "λ_min(H): how far from a minimum", "Alain et al., 2019; Lanczos, 1950", "flatter",
        "from the same products", "changes", part="smallest_eigenvalue",
    ),
    "hessian_trace": Metric(
        hessian_metrics, "tr H", "Hutchinson, 1990; Meyer et al., 2021", "sharper",
        "10 to 100 Hessian products", "changes", part="hessian_trace",
    ),
    "hessian_frobenius_norm": Metric(
        hessian_metrics, "‖H‖_F = √tr H²", "Hutchinson, 1990; Meyer et al., 2021", "sharper",
        "mostly from the same products", "changes", part="hessian_frobenius_norm",
    ),
    "gauss_newton_eigenvalue": Metric(
        gauss_newton_metrics, "λ_max(G), G = mean Jᵀ(∂²ℓ/∂f²)J", "Schraudolph, 2002; Lanczos, 1950", "sharper",
        "10 to 20 products", "changes", part="gauss_newton_eigenvalue",
    ),
    "gauss_newton_trace": Metric(
        gauss_newton_metrics, "tr G", "Schraudolph, 2002; Hutchinson, 1990", "sharper",
        "10 to 100 products", "changes", part="gauss_newton_trace",
    ),
    # worst case in a ball
    "epsilon_sharpness": Metric(
        epsilon_sharpness, "100 (max L(θ+z) − L(θ)) / (1 + L(θ)), |z_i| ≤ ε(|θ_i|+1)", "Keskar et al., ICLR 2017",
        "sharper", "1 forward and backward + about 10 a radius", "changes",
    ),
    "sam_sharpness": Metric(
        sam_sharpness, "max L(θ+e) − L(θ), ‖e‖₂ ≤ ρ", "Foret et al., ICLR 2021", "sharper",
        "1 forward and backward + the most steps a radius", "changes",
    ),
    "adaptive_sharpness": Metric(
        adaptive_sharpness, "max L(θ+e) − L(θ), ‖e/|θ|‖₂ ≤ ρ", "Kwon et al., ICML 2021", "sharper",
        "1 forward and backward + the most steps a radius", "unchanged",
    ),
    "m_sharpness": Metric(
        m_sharpness, "Σ_b n_b/n [L_b(θ + ρ g_b/‖g_b‖₂) − L_b(θ)]", "Foret et al., ICLR 2021, section 4.1", "sharper",
        "1 forward and backward + 1 forward a radius", "changes",
    ),
    # average case
    "isotropic_rise": Metric(
        isotropic_rise, "E L(θ+σu) − L(θ), u ~ N(0, I)", "Neyshabur et al., NeurIPS 2017", "sharper",
        "1 + draws × radii forward", "changes",
    ),
    "filter_normalized_rise": Metric(
        filter_normalized_rise, "E L(θ+ρd) − L(θ), ‖d_i‖ = ‖w_i‖", "Li et al., NeurIPS 2018", "sharper",
        "1 + draws × radii forward", "unchanged",
    ),
    "basin_radius": Metric(
        basin_radius, "median over d of min{r : L(θ+rd) > L(θ) + rise}", "directions: Li et al., NeurIPS 2018",
        "flatter", "1 + draws × (up to 15 + 4 a rise) forward", "unchanged",
    ),
    "pac_bayes_sigma": Metric(
        pac_bayes_sigma, "max σ : E L(θ+σu) − L(θ) ≤ rise, u ~ N(0, I)", "Jiang et al., ICLR 2020", "flatter",
        "1 + draws × about 15 forward", "changes",
    ),
    "pac_bayes_magnitude_sigma": Metric(
        pac_bayes_sigma, "the same with u_i ~ N(0, θ_i² + ε²)", "Jiang et al., ICLR 2020", "flatter",
        "1 + draws × about 17 forward", "unchanged", options={"magnitude": True},
    ),
    # unchanged by how a function is written in weights
    "relative_flatness": Metric(
        relative_flatness, "Σ_ss' ⟨w_s, w_s'⟩ tr H_ss', rows of one layer", "Petzka et al., NeurIPS 2021", "sharper",
        "10 to 200 products of one layer's block", "unchanged",
    ),
    "fisher_rao_norm": Metric(
        fisher_rao_norm, "⟨θ, F θ⟩, F the Fisher matrix", "Liang et al., AISTATS 2019", "sharper",
        "about 2 gradients and a Gauss-Newton product", "unchanged",
    ),
    "filter_normalized_trace": Metric(
        filter_normalized_trace, "E dᵀHd = Σ_i ‖w_i‖²/n_i tr H_ii", "after Tsuzuku et al., ICML 2020", "sharper",
        "10 to 200 Hessian products", "unchanged", options={"tolerance": 0.1},
    ),
    # read off filter-normalized planes
    "plane_curvature": Metric(
        plane_metrics, "tr ∇²f(0) / 2, f(α, β) = L(θ+αd+βd')", "Li et al., NeurIPS 2018", "sharper",
        "2 Hessian products a plane", "unchanged", part="plane_curvature",
    ),
    "area_below": Metric(
        plane_metrics, "area of f < f(0) + rise", "Li et al., NeurIPS 2018", "flatter",
        "an adaptive surface a plane: from 81 forward", "unchanged", part="area_below",
    ),
    "minimum_offset": Metric(
        plane_metrics, "‖argmin f‖: also how well the minimum was reached", "Li et al., NeurIPS 2018", "flatter",
        "from the same surfaces", "unchanged", part="minimum_offset",
    ),
    "convex_share": Metric(
        plane_metrics, "share of the plane where ∇²f ⪰ 0", "Li et al., NeurIPS 2018", "flatter",
        "from the same surfaces", "unchanged", part="convex_share",
    ),
    # first order
    "input_gradient_norm": Metric(
        gradient_norm_metrics, "mean of ‖∇ₓ ℓ_i‖₂ over examples", "Drucker and Le Cun, 1992", "sharper",
        "1 forward and backward", "unchanged", part="input_gradient_norm",
    ),
    "weight_gradient_norm": Metric(
        gradient_norm_metrics, "‖∇_w L‖₂, of each weight and of all", "Zhao et al., ICML 2022", "sharper",
        "1 forward and backward", "changes", part="weight_gradient_norm",
    ),
}  # fmt: skip
