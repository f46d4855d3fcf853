"""The command line: one sentence and status 2 for bad input, whole files or none, and a film that players can read."""

import inspect
import math
import os
import subprocess
import sys

import pytest
import torch

from sora_course import __main__ as cli
from sora_course.film_reader import FilmReader, seed_of_try
from sora_course.kit import checkpoints, display, doctor, world
from sora_course.kit.scenes import scene
from sora_course.sora import TextToVideo

PROMPT = "a red circle moves right"


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_checkpoint, capsys):
    """Call the command line in an empty folder; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


def generate(run, tiny_checkpoint, *more):
    return run("generate", PROMPT, "--checkpoint", tiny_checkpoint, "--steps", 1, *more)


def test_an_mp4_that_every_player_shows(run, tiny_checkpoint, tmp_path):
    av = pytest.importorskip("av")
    status, out, _ = generate(run, tiny_checkpoint, "--out", "film.mp4")
    assert status == 0 and "film.mp4" in out
    with av.open(tmp_path / "film.mp4") as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 8)
    assert len(frames) == 17 and frames[0].shape == (256, 256, 3)


def test_written_films_look_like_what_was_given(tmp_path):
    av = pytest.importorskip("av")
    from PIL import Image

    film = world.render([scene("blue", "star", "left")], generator=torch.Generator().manual_seed(0))[0]
    wanted = torch.from_numpy(display.to_frames(film, 4)).float()
    with av.open(display.write(tmp_path / "a.mp4", film)) as container:
        got = torch.stack([torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]).float()
    assert (got - wanted).abs().mean() < 4
    with Image.open(display.write(tmp_path / "a.gif", film)) as gif:
        assert gif.n_frames == 17 and gif.size == (256, 256) and gif.info["loop"] == 0
    with Image.open(display.write(tmp_path / "a.png", film[:, :1])) as png:
        assert png.size == (256, 256) and png.getpixel((2, 2)) == pytest.approx(world.BACKGROUNDS["paper"], abs=2)


def test_an_mp4_has_even_sides(tmp_path):
    with pytest.raises(ValueError, match="even sides.*63x63"):
        display.write(tmp_path / "a.mp4", torch.zeros(3, 5, 63, 63), scale=1)
    assert not list(tmp_path.iterdir())


def test_players_hold_their_films(generator):
    films = world.render([scene("blue", "star", "left")], generator=generator)
    page = display.row([films[0], films[0, :, :1]], ["a < b", "still"], scale=2).data
    assert page.count("data:video/mp4;base64,AAAA") == 1 and page.count("data:image/png;base64,iVBO") == 1 and "a &lt; b" in page
    with pytest.raises(ValueError, match="2 films and 1 captions"):
        display.player(torch.cat([films, films]), ["one"])


@pytest.mark.parametrize("ending", ["mp4", "gif", "png"])
def test_default_name_other_endings_and_counts(run, tiny_checkpoint, tmp_path, ending):
    assert generate(run, tiny_checkpoint, "--count", 2, "--seed", 5, "--out", f"x.{ending}")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"x_5.{ending}", f"x_6.{ending}"]
    assert generate(run, tiny_checkpoint, "--frames", 1, "--size", "96x64")[0] == 0
    assert [p.name for p in (tmp_path / "videos").iterdir()] == ["a_red_circle_moves_right_0.mp4"]


def test_long_prompts_get_names_of_their_own_that_every_disk_takes():
    import re

    left, right = ("a small yellow triangle " + "drifts to the upper left and a small purple triangle " * 4 + end for end in ("left", "right"))
    names = [cli._default_name(prompt, 0) for prompt in (left, right, 40 * "一个红色的圆形")]
    assert len(set(names)) == 3 and all(len(name.encode()) < 200 and re.fullmatch(r"\w+_0\.mp4", name) for name in names)


def test_without_the_reader_one_film_is_made_and_that_is_said(run, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SORA_COURSE_DATA", str(tmp_path))
    status, out, err = generate(run, tiny_checkpoint, "--out", "a.png")
    assert status == 0 and "best of" not in out and "No second look" in err and (tmp_path / "a.png").is_file()
    assert generate(run, tiny_checkpoint, "--tries", 2, "--out", "b.png")[0] == 2


@pytest.mark.parametrize("said", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory: you tried"])
def test_too_little_memory_gets_one_sentence(run, tiny_checkpoint, monkeypatch, said):
    def too_large(*a, **k):
        raise RuntimeError(said)

    monkeypatch.setattr(TextToVideo, "generate", too_large)
    status, out, err = generate(run, tiny_checkpoint)
    assert status == 2 and out == "" and "not enough memory" in err and len(err.strip().splitlines()) == 1
    monkeypatch.setattr(TextToVideo, "generate", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        generate(run, tiny_checkpoint)


def test_doubtful_films_are_drawn_again_unless_one_try_is_wanted(run, tiny_checkpoint, tmp_path, monkeypatch):
    """The tiny model paints noise, which reads as nothing; so the film of the first try that is believed a little is kept."""
    seeds, make = [], TextToVideo.generate
    monkeypatch.setattr(TextToVideo, "generate", lambda *a, seed, **how: seeds.extend(seed) or make(*a, seed=seed, **how))
    beliefs = iter([0.1, 0.3, 0.2] + [0.1, 0.3, 0.2, 0.1])
    monkeypatch.setattr(FilmReader, "belief", lambda reader, films, scenes: torch.tensor([next(beliefs)]))
    status, out, _ = generate(run, tiny_checkpoint, "--tries", 3, "--seed", 7, "--out", "best.png")
    assert status == 0 and "the best of 3 films" in out and seeds == [seed_of_try(7, n) for n in range(3)]
    status, out, _ = generate(run, tiny_checkpoint, "--tries", 1, "--seed", seeds[1], "--out", "alone.png")
    assert status == 0 and "best of" not in out and seeds[3:] == [seeds[1]]
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "best.png").read_bytes()
    status, out, _ = generate(run, tiny_checkpoint, "--seed", 7, "--out", "usual.png")
    assert "the best of 4 films" in out and (tmp_path / "usual.png").read_bytes() == (tmp_path / "best.png").read_bytes()
    assert "best of" not in generate(run, tiny_checkpoint, "--frames", 1, "--out", "still.png")[1]  # which cannot be read


def test_other_wordings_make_the_same_film(run, tiny_checkpoint, tmp_path):
    for i, prompt in enumerate((PROMPT, "please show the video of a red ball going to the right")):
        assert run("generate", prompt, "--checkpoint", tiny_checkpoint, "--steps", 1, "--out", f"{i}.png")[0] == 0
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


BAD = [
    (["generate", ""], "empty"),
    (["generate", "a red dragon moves right"], "'dragon'.*circle"),
    (["generate", "红色的龙"], "'龙'.*圆形"),
    (["generate", "a small red circle moves right"], "starter preset"),
    (["generate", "a red cross moves right"], "never saw the shape 'cross'.*heart"),
    (["generate", "a red circle bounces"], "never saw the motion 'bouncing'"),
    (["generate", "a red circle"], "nothing moves; name a motion"),
    (["generate", PROMPT, "--size", "160000x160000"], "more than this small model can paint"),
    (["generate", PROMPT, "--size", "60x64"], "nearest is 64x64"),
    (["generate", PROMPT, "--size", "64"], "WIDTHxHEIGHT"),
    (["generate", PROMPT, "--size", "0x64"], "nearest is 16x64"),
    (["generate", PROMPT, "--frames", "16"], "nearest is 17"),
    (["generate", PROMPT, "--frames", "0"], "1 or more"),
    (["generate", PROMPT, "--steps", "-3"], "1 or more"),
    (["generate", PROMPT, "--steps", "many"], "1 or more"),
    (["generate", PROMPT, "--seed", "-1"], "0 or more"),
    (["generate", PROMPT, "--guidance-scale", "nan"], "from 0 up"),
    (["generate", PROMPT, "--count", "0"], "1 or more"),
    (["generate", PROMPT, "--tries", "0"], "1 or more"),
    (["generate", PROMPT, "--tries", "4", "--frames", "1"], "of 9 to 25 frames"),
    (["generate", PROMPT, "--out", "nowhere/film.mp4"], "does not exist"),
    (["generate", PROMPT, "--out", "film.avi"], r"\.mp4, \.gif, \.png"),
    (["generate", PROMPT, "--checkpoint", "missing.safetensors"], "no checkpoint"),
    (["generate"], "--help"),
    (["train", "huge"], "not a recipe; there are starter, full, longer, longest, finish, tiny"),
    (["train", "tiny", "--stage", "dit"], "run stage 'vae' first"),
    (["train", "tiny", "--stage", "unet"], "--help"),
    (["evaluate", "--prompts", "0"], "1 or more"),
    (["evaluate", "--prompts", "2", "--frames", "1", "--checkpoint", "TINY"], "5 frames or more"),
    (["evaluate", "--prompts", "2", "--objects", "2", "--checkpoint", "TINY"], "never saw two objects"),
    (["evaluate", "--json", "nowhere/x.json"], "cannot be written to nowhere"),
    (["evaluate", "--prompts", "1", "--checkpoint", "TINY"], "2 prompts or more"),
    (["world", "--out", "sheet.gif"], "does not end in .png"),
    (["paint"], "--help"),
]


@pytest.mark.parametrize("arguments, said", BAD, ids=[" ".join(a)[:50] for a, _ in BAD])
def test_bad_input_gets_one_sentence(run, tiny_checkpoint, tmp_path, arguments, said):
    if arguments[0] == "generate" and len(arguments) > 1 and "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", tiny_checkpoint]
    arguments = [tiny_checkpoint if a == "TINY" else a for a in arguments]
    status, out, err = run(*arguments)
    assert status == 2 and out == "" and len(err.strip().splitlines()) == 1
    import re

    assert re.search(said, err), err
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_device_that_is_not_there(run, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for arguments in (["generate", PROMPT], ["evaluate"]):
        status, out, err = run(*arguments, "--device", "mps")
        assert status == 2 and out == "" and "finds no mps on this machine" in err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything is writable here")
def test_a_folder_that_cannot_be_written_to(run, tiny_checkpoint, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    status, _, err = generate(run, tiny_checkpoint, "--out", "locked/x.mp4")
    assert status == 2 and "cannot be written" in err


def test_damaged_and_foreign_checkpoints(run, tiny_checkpoint, tmp_path):
    from safetensors.torch import save_file

    bad = tmp_path / "bad.safetensors"
    tensors, config = checkpoints.load(tiny_checkpoint)
    cases = []
    bad.write_bytes(tiny_checkpoint.read_bytes()[:1000])
    cases.append(run("generate", PROMPT, "--checkpoint", bad))
    save_file(tensors, bad)
    cases.append(run("generate", PROMPT, "--checkpoint", bad))
    checkpoints.save(bad, tensors, config | {"dit": config["dit"] | {"hidden_size": 64}})
    cases.append(run("generate", PROMPT, "--checkpoint", bad))
    checkpoints.save(bad, tensors, {"recipe": "x"})
    cases.append(run("generate", PROMPT, "--checkpoint", bad))
    for (status, _, err), said in zip(cases, ("not a whole", "not written by this course", "do not belong together", "config inside")):
        assert status == 2 and said in err and len(err.strip().splitlines()) == 1


def test_an_existing_film_stays_until_the_new_one_is_whole(run, tiny_checkpoint, tmp_path, monkeypatch):
    (tmp_path / "film.mp4").write_text("old")

    def fail(frames, target, fps):
        raise OSError("disk full")

    monkeypatch.setattr(display, "_encode_mp4", fail)
    status, _, err = generate(run, tiny_checkpoint, "--out", "film.mp4")
    assert status == 2 and "disk full" in err
    assert (tmp_path / "film.mp4").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_train_evaluate_and_generate_from_nothing(run, tmp_path):
    """The whole road with the tiny recipe; a second call finds everything done."""
    status, out, err = run("train", "tiny", "--measure", 2)
    assert status == 0 and "sora_tiny.safetensors" in out, err
    checkpoint = tmp_path / "runs" / "tiny" / "sora_tiny.safetensors"
    before = checkpoint.read_bytes()
    text, model = (checkpoints.load(f)[0] for f in (checkpoint.with_name("text.safetensors"), checkpoint))
    assert all(torch.equal(t.half(), model[f"text.{name}"]) for name, t in text.items())  # the text encoder stays as it was
    assert run("train", "tiny")[0] == 0 and checkpoint.read_bytes() == before
    status, out, err = run("evaluate", "--prompts", 4, "--steps", 1, "--checkpoint", checkpoint, "--json", "report.json")
    assert status == 0 and "ceiling" in out and "chance" in out, err
    import json

    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["rows"]) == {"model", "ceiling", "baseline", "chance"} and report["rows"]["model"]["all"]["high"] <= 1
    assert (report["steps"], report["shift"], report["eta"], report["tries"]) == (1, 3.0, "inf", 1)
    assert run("generate", PROMPT, "--checkpoint", checkpoint, "--steps", 1, "--out", "x.png")[0] == 0
    status, out, err = run("evaluate", "--prompts", 2, "--steps", 1, "--checkpoint", checkpoint, "--frames", 9, "--size", "96x64")
    assert status == 0 and "1 object, 9 frames of 96x64" in out, err
    status, out, err = run("evaluate", "--prompts", 2, "--steps", 1, "--checkpoint", checkpoint, "--tries", 2)
    assert status == 0 and "checked, chinese" in out and "were drawn on average" in out, err
    status, out, err = run("evaluate", "--prompts", 2, "--steps", 1, "--checkpoint", checkpoint, "--variety")
    assert status == 0 and "not of as many fresh ones" in out, err


def test_every_way_to_a_film_has_the_same_defaults(run, tiny_checkpoint, monkeypatch):
    """`generate` from Python, the two commands (the prompt box has its own test): the films measured are the films made."""
    defaults = {name: p.default for name, p in inspect.signature(TextToVideo.generate).parameters.items()} | {"eta": math.inf}
    asked = []

    def generate(model, prompts, **settings):
        asked.append(settings)
        return torch.zeros(len([prompts] if isinstance(prompts, str) else prompts), 3, 17, 64, 64)

    monkeypatch.setattr(TextToVideo, "generate", generate)
    for command in (["generate", PROMPT], ["evaluate", "--prompts", 2]):
        before = len(asked)
        assert run(*command, "--checkpoint", tiny_checkpoint)[0] == 0 and len(asked) > before
    assert "eta" in asked[-1]
    for settings in asked:
        own = {name: value for name, value in settings.items() if name not in ("seed", "progress")}
        assert own == {name: defaults[name] for name in own} and own.keys() >= {"steps", "guidance_scale", "num_frames", "size"}


def test_world_draws_a_sheet(run, tmp_path):
    assert run("world", "--count", 3, "--preset", "starter", "--out", "w.png")[0] == 0
    assert (tmp_path / "w.png").stat().st_size > 5000


def test_doctor_says_ok_or_fail_with_the_remedy(capsys):
    def broken():
        raise RuntimeError("torch is missing; pip install torch")

    assert doctor.run((lambda: "fine",)) and not doctor.run((lambda: "fine", broken))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[OK]   fine" and lines[3] == "[FAIL] torch is missing; pip install torch"


def test_the_doctor_lives_without_torch():
    code = "import sys; sys.modules['torch'] = None; from sora_course.__main__ import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "[FAIL]" in done.stdout and "Traceback" not in done.stderr


def test_the_package_imports_at_once():
    heavy = "torch torchvision matplotlib av modelscope sklearn".split()
    code = f"import sys, sora_course, sora_course.__main__; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    code = "import sys, sora_course.sora, sora_course.kit.display; print([m for m in {} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code.format(heavy[1:])], capture_output=True, text=True).stdout
    assert out.strip() == "[]"
