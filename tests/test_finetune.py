"""Films of one's own: what is read, cropped, sorted, refused, skipped, and learned."""

import csv
from fractions import Fraction

import pytest
import torch

from sora_course import finetune
from sora_course.kit import display, films
from sora_course.sora import TextToVideo
from sora_course.text import Tokenizer


def write_gif(path, colour, frames, size, milliseconds=125):
    from PIL import Image

    images = [Image.new("RGB", size, tuple(min(255, c + 4 * i) for c in colour)) for i in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0)


def write_captions(folder, rows):
    with open(folder / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "caption"), *rows])


@pytest.fixture
def folder(tmp_path):
    """Two films and a picture, in three shapes."""
    video = torch.linspace(-1, 1, 17).view(1, 17, 1, 1).expand(3, 17, 64, 64)
    display.write(tmp_path / "square.mp4", video, scale=1)
    write_gif(tmp_path / "wide.gif", (10, 60, 90), 40, (192, 100))
    write_gif(tmp_path / "tall.gif", (90, 60, 10), 9, (60, 120), milliseconds=250)
    display.write(tmp_path / "still.png", video[:, :1], scale=1)
    write_captions(tmp_path, [("square.mp4", "a grey wall grows light"), ("wide.gif", "a blue lamp"),
                              ("tall.gif", "an orange lamp"), ("still.png", "a dark wall")])  # fmt: skip
    return tmp_path


def test_clips_are_cut_cropped_and_sorted_by_shape(folder):
    clips, summary = films.read_folder(folder)
    assert sorted(clip.shape for clip in clips) == [(1, 64, 64), (17, 64, 64), (17, 64, 96), (17, 64, 96), (17, 96, 64)]
    assert "5 clips" in summary and "4 files" in summary and "2 of 17x64x96" in summary
    assert all(clip.video.dtype == torch.uint8 for clip in clips)


def test_films_are_read_at_eight_frames_a_second_and_as_they_look(folder):
    film = films.read_film(folder / "square.mp4").float()
    wanted = (torch.linspace(-1, 1, 17) + 1) * 127.5
    assert film.shape == (3, 17, 64, 64) and (film.mean((0, 2, 3)) - wanted).abs().max() < 4
    slow = films.read_film(folder / "tall.gif")  # four frames a second: each is seen twice
    assert slow.shape[1] == 18 and torch.equal(slow[:, 0], slow[:, 1]) and not torch.equal(slow[:, 1], slow[:, 2])


def test_frames_that_last_longer_are_seen_longer(tmp_path):
    """Nine frames of 0.04 s and nine of 0.21 s, an eighth of a second each on average."""
    from PIL import Image

    images = [Image.new("RGB", (64, 64), (12 * i, 0, 0)) for i in range(18)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[40] * 9 + [210] * 9)
    red = films.read_film(tmp_path / "a.gif")[0].float().mean((1, 2))
    assert (red < 102).sum() == 3 and len(red) == 17  # how long the last one lasts no file says


def test_odd_names_hidden_folders_and_moving_pictures(folder):
    from PIL import Image

    images = [Image.new("RGB", (64, 64), (20 * i, 0, 0)) for i in range(5)]
    images[0].save(folder / "moving.png", save_all=True, append_images=images[1:])
    write_gif(folder / "take:1.gif", (10, 60, 90), 17, (64, 64))
    (folder / ".ipynb_checkpoints").mkdir()
    write_gif(folder / ".ipynb_checkpoints" / "take-checkpoint.gif", (10, 60, 90), 17, (64, 64))
    write_captions(folder, [("moving.png", "a red wall"), ("take:1.gif", "a blue lamp"), ("square.mp4", "a grey wall"),
                            ("wide.gif", "a lamp"), ("tall.gif", "a lamp"), ("still.png", "a dark wall")])  # fmt: skip
    clips, _ = films.read_folder(folder)
    assert sum(clip.caption == "a red wall" for clip in clips) == 1 and any(clip.caption == "a blue lamp" for clip in clips)


def test_a_file_known_by_two_names_is_one_film(folder):
    """As where upper and lower case are the same to the disk: a captions file that says Wide.gif means wide.gif."""
    if not (folder / "Wide.gif").exists():
        (folder / "Wide.gif").hardlink_to(folder / "wide.gif")
    write_captions(folder, [("square.mp4", "a wall"), ("Wide.gif", "a lamp"), ("tall.gif", "a lamp"), ("still.png", "a wall")])
    assert "from 4 files." in films.read_folder(folder)[1]


def test_a_caption_that_is_too_long_is_named_with_its_line(folder):
    write_captions(folder, [("square.mp4", "very " * 70), ("wide.gif", "a lamp"), ("tall.gif", "a lamp"), ("still.png", "a wall")])
    check = lambda text: Tokenizer(["<pad>", "<unknown>"])([text])  # noqa: E731
    with pytest.raises(ValueError, match="line 2 of captions.csv: A text has 1 to 64 tokens"):
        films.read_folder(folder, check=check)
    assert "line 2" in films.read_folder(folder, check=check, skip=True)[1]


def test_a_gif_of_ours_comes_back_frame_by_frame(tmp_path):
    """Its frames last 0.12 s, for a GIF cannot say 0.125; none of them may get lost."""
    video = torch.linspace(-1, 1, 17).view(1, 17, 1, 1).expand(3, 17, 64, 64)
    film = films.read_film(display.write(tmp_path / "own.gif", video, scale=1)).float()
    assert film.shape[1] == 17 and (film.mean((0, 2, 3)) - (torch.linspace(-1, 1, 17) + 1) * 127.5).abs().max() < 4


@pytest.mark.parametrize(
    "height, width, size", [(50, 50, (64, 64)), (100, 400, (64, 96)), (300, 200, (96, 64)), (64, 80, (64, 96))]
)
def test_the_middle_is_kept_and_nothing_is_stretched(height, width, size):
    film = torch.zeros(3, 2, height, width, dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    film[:, :, (rows - height / 2 + 0.5) ** 2 + (columns - width / 2 + 0.5) ** 2 < (min(height, width) / 4) ** 2] = 255
    fitted = films.fit(film, films.nearest_size(height, width))
    assert fitted.shape == (3, 2, *size)
    disc = (fitted[0, 0] > 127).nonzero().float()
    extent = disc.amax(0) - disc.amin(0)
    assert (extent[0] - extent[1]).abs() <= 2  # round as before
    assert ((disc.mean(0) - (torch.tensor(size) - 1) / 2).abs() <= 1).all()


def spoil(folder, how):
    rows = [
        ("square.mp4", "a grey wall grows light"),
        ("wide.gif", "a blue lamp"),
        ("tall.gif", "an orange lamp"),
        ("still.png", "x"),
    ]
    if how == "unreadable":
        (folder / "wide.gif").write_bytes(b"no film")
    elif how == "caption without a file":
        rows.append(("gone.mp4", "a ghost"))
    elif how == "file without a caption":
        rows.pop(0)
    elif how == "too short":
        write_gif(folder / "wide.gif", (10, 60, 90), 5, (192, 100))
    elif how == "a single frame":
        write_gif(folder / "wide.gif", (10, 60, 90), 3, (192, 100), milliseconds=40)
    elif how == "a slide show":
        write_gif(folder / "wide.gif", (10, 60, 90), 8, (192, 100), milliseconds=60_000)
    elif how == "another ending":
        rows.append(("notes.txt", "my notes"))
    elif how == "comma":
        (folder / "captions.csv").write_text("file,caption\n\nsquare.mp4,a wall, very light\n" + "".join(f"{a},{b}\n" for a, b in rows[1:]))
        return
    elif how == "outside":
        rows.append(("../x.mp4", "another's"))
    elif how == "empty":
        rows.append(("tall.gif", " "))
    write_captions(folder, rows)


@pytest.mark.parametrize(
    "how, said",
    [
        ("unreadable", "wide.gif cannot be read as a film"), ("caption without a file", "gone.mp4 has a caption and is not there"),
        ("file without a caption", "square.mp4 has no caption"), ("too short", "wide.gif has 5 frames at 8 a second, and 17 are"),
        ("a single frame", "wide.gif has 1 frames at 8 a second"), ("a slide show", "wide.gif lasts 480 seconds, and 300 are the most"),
        ("another ending", "notes.txt does not end as films"), ("comma", "line 3 of captions.csv has more cells"),
        ("outside", "../x.mp4 is no film inside the folder"), ("empty", "line 6 of captions.csv names no caption"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_and_refused_or_skipped(how, said, folder):
    spoil(folder, how)
    with pytest.raises(ValueError, match="--skip") as error:
        films.read_folder(folder)
    assert said in str(error.value)
    clips, summary = films.read_folder(folder, skip=True)
    assert clips and said in summary


def test_a_film_that_changes_its_size_is_fitted_frame_by_frame(tmp_path):
    import av

    with av.open(str(tmp_path / "change.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for i in range(18):
            size = (64, 64) if i < 9 else (96, 64)
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = *size, "yuvj420p", Fraction(1, 8)
            frame = av.VideoFrame.from_ndarray(torch.full((size[1], size[0], 3), 10 * i, dtype=torch.uint8).numpy(), format="rgb24")
            for packet in encoder.encode(frame.reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts = stream, i, i
                container.mux(packet)
    film = films.read_film(tmp_path / "change.avi").float()
    assert film.shape == (3, 18, 64, 64)
    assert (film.mean((0, 2, 3)) - 10 * torch.arange(18)).abs().max() < 6


def test_a_film_that_a_phone_held_upright_stands_upright(tmp_path):
    """Phones store films lying down, and say in the file (tkhd, ISO 14496-12) by how much to turn them."""
    import av

    video = torch.full((3, 17, 64, 96), -1.0)
    video[:, :, :, :48] = 1.0  # light on the left
    path = display.write(tmp_path / "phone.mp4", video, scale=1)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    turn = [0, 1 << 16, 0, (1 << 32) - (1 << 16), 0, 0, 0, 0, 1 << 30]  # a quarter turn clockwise
    data[matrix : matrix + 36] = b"".join(entry.to_bytes(4, "big") for entry in turn)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        if not hasattr(next(container.decode(video=0)), "rotation"):
            pytest.skip("this PyAV does not tell how a frame is turned")
    film = films.read_film(path).float()
    assert film.shape == (3, 17, 96, 64)
    assert film[:, :, :40].mean() > 200 and film[:, :, 56:].mean() < 50  # what was left is now above


def test_folders_that_are_none(tmp_path):
    for wrong, said in ((tmp_path / "no", "There is no folder"), (tmp_path, "holds no captions.csv")):
        with pytest.raises(ValueError, match=said):
            films.read_folder(wrong)
    (tmp_path / "captions.csv").write_text("name;text\na;b\n")
    with pytest.raises(ValueError, match="first line `file,caption`"):
        films.read_folder(tmp_path)
    write_captions(tmp_path, [("gone.gif", "a ghost")])
    with pytest.raises(ValueError, match="nothing is left"):
        films.read_folder(tmp_path, skip=True)
    with pytest.raises(ValueError, match="4n \\+ 1"):
        films.read_folder(tmp_path, num_frames=16)


def test_new_words_change_nothing_that_was_known(tiny_model):
    prompt = "a red circle moves right"
    larger = finetune.with_words(tiny_model, ["a dragon flies"])
    assert len(larger.tokenizer.vocabulary) == len(tiny_model.tokenizer.vocabulary) + 2
    assert torch.equal(larger.generate(prompt, steps=2), tiny_model.generate(prompt, steps=2))
    assert finetune.unknown_words(larger, "a dragon sings") == ["sings"]


def test_finetuning_learns_resumes_and_leaves_the_vae_alone(folder, tiny_model, tmp_path_factory):
    clips, _ = films.read_folder(folder)
    whole = tmp_path_factory.mktemp("whole")
    tuned = finetune.finetune(tiny_model, clips, whole, name="mine", steps=6, batch=2)
    saved = TextToVideo.from_pretrained(whole / "sora_mine.safetensors")
    assert saved.config["preset"] == finetune.OWN and "lamp" in saved.tokenizer.index
    before, after = tiny_model.state_dict(), tuned.state_dict()
    changed = {
        name.split(".")[0]
        for name in before
        if before[name].shape != after[name].shape or not torch.equal(before[name], after[name])
    }
    assert changed == {"dit", "text"}
    assert torch.equal(before["text.blocks.0.qkv.weight"], after["text.blocks.0.qkv.weight"])
    backwards = [films.Clip(clip.video.flip(1), clip.caption) for clip in clips]
    for other in ({"clips": clips[:-1]}, {"clips": backwards}, {"model": tuned}, {"batch": 1}):  # none of these may go on from that save
        with pytest.raises(ValueError, match="other settings"):
            finetune.finetune(**{"model": tiny_model, "clips": clips, "folder": whole, "name": "mine", "steps": 6, "batch": 2} | other)
    assert saved.generate("a blue lamp", steps=2).isfinite().all()


def test_finetuning_that_was_stopped_ends_as_if_it_had_not_been(folder, tiny_model, tmp_path, monkeypatch):
    clips, _ = films.read_folder(folder)
    call = {"name": "mine", "steps": 8, "batch": 2}
    whole = finetune.finetune(tiny_model, clips, tmp_path / "whole", **call).state_dict()
    true_loss, calls = TextToVideo.loss, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return true_loss(*args, **kwargs)

    monkeypatch.setattr(TextToVideo, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(tiny_model, clips, tmp_path / "parts", **call)
    resumed = finetune.finetune(tiny_model, clips, tmp_path / "parts", **call).state_dict()
    assert len(calls) == 6 + 8 - 4  # saved after 4 steps, stopped in the 6th
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_command_line_refuses_what_the_own_model_never_saw(
    folder, tiny_checkpoint, tmp_path_factory, capsys, monkeypatch
):
    from sora_course.__main__ import main

    out = tmp_path_factory.mktemp("out")
    monkeypatch.chdir(out)
    call = ["finetune", str(folder), "--name", "mine", "--steps", "2", "--checkpoint", str(tiny_checkpoint)]
    assert main(call) == 0 and (out / "runs" / "mine" / "sora_mine.safetensors").is_file()
    mine = ["--checkpoint", "runs/mine/sora_mine.safetensors", "--steps", "1"]
    assert main(["generate", "a blue lamp", "--out", "a.png", *mine]) == 0 and (out / "a.png").is_file()
    assert main(["generate", "a purple dragon", "--out", "b.png", *mine]) == 2 and not (out / "b.png").exists()
    assert "never saw 'dragon'" in capsys.readouterr().err
    assert main(["evaluate", *mine[:2]]) == 2 and "films of your own" in capsys.readouterr().err
    (out / "runs" / "full").mkdir()
    (out / "runs" / "full" / "recipe.json").write_text("{}")
    assert main(["finetune", str(folder), "--name", "full", *mine[:2]]) == 2 and "training of a recipe" in capsys.readouterr().err
    assert main(["finetune", str(folder), "--name", "a/b"]) == 2 and "A name has letters" in capsys.readouterr().err
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert main(["finetune", str(folder), "--device", "mps"]) == 2 and "finds no mps" in capsys.readouterr().err
