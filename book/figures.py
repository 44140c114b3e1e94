"""Figures drawn by hand rather than by a cell; `![caption](fig:NAME){#fig-NAME alt="..."}` in a chapter calls the function NAME."""

from drawing import Diagram

__all__ = ["attention_head"]


def attention_head() -> None:
    """Draws one head: projections, scores, scale and mask, softmax, mix."""
    diagram = Diagram(5.7, 1.9)
    diagram.node("x", 0.42, 0.95, "input", "data", 0.72, r"$B, T, C$")
    for key, y, name in (("q", 1.63, "query"), ("k", 0.95, "key"), ("v", 0.27, "value")):
        diagram.node(key, 1.56, y, name, "weights", 0.78, r"$B, H, T, D$")
    diagram.node("scores", 2.72, 1.29, "scores", "square", 0.82, r"$B, H, T, T$")
    diagram.node("mask", 3.78, 1.29, "scale, mask", "step", 0.9, r"$\div\sqrt{D}\,,\;-\infty$")
    diagram.node("weights", 4.95, 1.29, "softmax", "square", 0.86, r"$B, H, T, T$")
    diagram.node("mix", 4.95, 0.27, "weights · value", "result", 1.1, r"$B, H, T, D$")
    for key, y in (("q", 1.63), ("k", 0.95), ("v", 0.27)):
        diagram.arrow("x", key, corners=[] if key == "k" else [(0.97, 0.95), (0.97, y)])
    for key, y in (("q", 1.63), ("k", 0.95)):
        diagram.arrow(key, "scores", corners=[(2.13, y), (2.13, 1.29)])
    diagram.arrow("scores", "mask")
    diagram.arrow("mask", "weights")
    diagram.arrow("weights", "mix", "bottom", "top")
    diagram.arrow("v", "mix")
