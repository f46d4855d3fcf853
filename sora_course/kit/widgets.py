"""Controls to play with in a notebook."""

from __future__ import annotations

from . import display
from .captions import LANGUAGES, caption, language_of, parse
from .scenes import PRESETS, check_known, is_held_out, scene


def prompt_box(model):
    """Menus over the words that the model knows, a box for a free prompt, seed, steps and guidance; the film plays below.

    Args:
        model: has `config["preset"]` and `generate`, as `sora.TextToVideo`.
    """
    import ipywidgets as w
    from IPython.display import display as show

    words = PRESETS[model.config["preset"]]
    menus = [w.Dropdown(options=words[f"{kind}s"], description=kind) for kind in ("colour", "shape", "motion")]
    language = w.Dropdown(options=LANGUAGES, description="language")
    prompt = w.Text(description="prompt", layout=w.Layout(width="34em"))
    seed = w.IntSlider(0, 0, 99, description="seed", continuous_update=False)
    steps = w.IntSlider(24, 1, 50, description="steps", continuous_update=False)
    guidance = w.FloatSlider(2.0, min=1.0, max=6.0, step=0.5, description="guidance", continuous_update=False)
    button, note, film = w.Button(description="Make the film", button_style="primary"), w.HTML(), w.Output()

    def write_prompt(_=None):
        chosen = scene(*(menu.value for menu in menus))
        prompt.value = caption(chosen, language.value)

    def make(_):
        button.disabled, button.description = True, "painting ..."
        film.clear_output(wait=True)
        with film:
            try:
                meant = check_known(parse(prompt.value), model.config["preset"])
                note.value = "Training never showed this combination." if is_held_out(meant) else ""
                text = caption(meant, language_of(prompt.value))
                settings = {"seed": seed.value, "steps": steps.value, "guidance_scale": guidance.value}
                show(display.player(model.generate(text, **settings), [prompt.value]))
            except ValueError as error:
                print(error)
        button.disabled, button.description = False, "Make the film"

    for menu in (*menus, language):
        menu.observe(write_prompt, "value")
    button.on_click(make)
    write_prompt()
    return w.VBox([w.HBox(menus), w.HBox([prompt, language]), w.HBox([seed, steps, guidance]), w.HBox([button, note]), film])


def explore(draw, **controls):
    """Controls over a function that draws with matplotlib; the picture is drawn anew when one of them is let go.

    Args:
        draw: takes the controls' values by name and leaves a figure open.
        controls: for each argument either (low, high, step, start) for a slider or a list of choices for a menu.
    """
    import ipywidgets as w
    import matplotlib.pyplot as plt
    from IPython.display import display as show

    whole = {"description_width": "initial"}  # names are not cut off

    def control(name: str, given):
        name = name.replace("_", " ")
        if isinstance(given, list):
            return w.Dropdown(options=given, description=name, style=whole)
        low, high, step, start = given
        slider = w.IntSlider if all(isinstance(value, int) for value in given) else w.FloatSlider
        return slider(start, min=low, max=high, step=step, description=name, continuous_update=False, style=whole)

    chosen, picture = {name: control(name, given) for name, given in controls.items()}, w.Output()

    def redraw(_=None):
        picture.clear_output(wait=True)
        with picture:
            draw(**{name: box.value for name, box in chosen.items()})
            show(plt.gcf())
            plt.close()

    for box in chosen.values():
        box.observe(redraw, "value")
    redraw()
    rows = w.Layout(flex_flow="row wrap")  # many controls go on in a second row
    return w.VBox([w.HBox(list(chosen.values()), layout=rows), picture])
