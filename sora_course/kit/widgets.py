"""Controls to play with in a notebook."""

from __future__ import annotations

import html

from . import display
from .captions import LANGUAGES, caption, language_of, parse
from .scenes import BACKGROUNDS, CAMERAS, PRESETS, SIZES, SPEEDS, check_known, is_held_out, scene


_FULL_ONLY = {"size": SIZES, "speed": SPEEDS, "background": BACKGROUNDS, "camera": CAMERAS}


def prompt_box(model):
    """Menus over the words that the model knows, a box for a free prompt, seed, steps and guidance; the film plays below.

    A model that learned from films of one's own has no menus: its prompts are free, and a word that it never saw is named.

    Args:
        model: has `config["preset"]` and `generate`, as `sora.TextToVideo`.
    """
    import ipywidgets as w
    from IPython.display import display as show

    preset = model.config["preset"]
    words = {kinds.removesuffix("s"): known for kinds, known in PRESETS.get(preset, {}).items()}
    words |= _FULL_ONLY if preset == "full" else {}
    menus = {kind: w.Dropdown(options=list(known), description=kind) for kind, known in words.items()}
    language = w.Dropdown(options=LANGUAGES, description="language")
    prompt = w.Text(model.config.get("example", ""), description="prompt", layout=w.Layout(width="34em"))
    seed = w.IntSlider(0, 0, 99, description="seed", continuous_update=False)
    steps = w.IntSlider(24, 1, 50, description="steps", continuous_update=False)
    guidance = w.FloatSlider(2.0, min=1.0, max=6.0, step=0.5, description="guidance", continuous_update=False)
    button, note, film = w.Button(description="Make the film", button_style="primary"), w.HTML(), w.Output()

    def write_prompt(_=None):
        try:
            prompt.value = caption(scene(**{kind: menu.value for kind, menu in menus.items()}), language.value)
            note.value = ""
        except ValueError as error:  # such as a ring that spins
            note.value = html.escape(str(error))

    def make(_):
        button.disabled, button.description = True, "painting ..."
        film.clear_output(wait=True)
        with film:
            try:
                text, note.value = prompt.value, ""
                if menus:
                    meant = check_known(parse(text), preset)
                    note.value = "Training never showed this combination." if is_held_out(meant) else ""
                    text = caption(meant, language_of(text))
                elif unknown := [token for token in model.tokenizer.split(text) if token not in model.tokenizer.index]:
                    raise ValueError(f"This model never saw {', '.join(map(repr, unknown))}.")
                settings = {"seed": seed.value, "steps": steps.value, "guidance_scale": guidance.value}
                show(display.player(model.generate(text, **settings), [prompt.value]))
            except ValueError as error:
                print(error)
        button.disabled, button.description = False, "Make the film"

    if menus:
        for menu in (*menus.values(), language):
            menu.observe(write_prompt, "value")
        write_prompt()
    button.on_click(make)
    rows = w.Layout(flex_flow="row wrap")
    top = [w.HBox(list(menus.values()), layout=rows), w.HBox([prompt, language])] if menus else [prompt]
    return w.VBox([*top, w.HBox([seed, steps, guidance]), w.HBox([button, note]), film])


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
