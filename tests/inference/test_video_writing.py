"""Videos that are written: rate, sound, codecs, and what happens without ffmpeg."""

import re
import subprocess

import numpy as np
import pytest
from video_clips import Counter, needs_ffmpeg, number_of, picture

from fcos.errors import ImageError
from fcos.inference import video, video_writing
from fcos.inference.video import Frame, Reader, VideoError
from fcos.inference.video_stream import stream
from fcos.inference.video_writing import write_video
from fcos.show.frames import Painter, VideoFiles, write_frames


@needs_ffmpeg
def test_a_written_video_plays_in_browsers_and_keeps_rate_and_sound(tmp_path):
    sound = tmp_path / "with sound.mp4"
    subprocess.run(
        [video_writing.find_ffmpeg(), "-loglevel", "error",
         "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2",
         "-f", "lavfi", "-i", "sine=duration=2", "-pix_fmt", "yuv420p", str(sound)], check=True,
    )  # fmt: skip
    out = tmp_path / "out.mp4"
    count = write_video(out, (Frame(i, i / 10, picture(i, (47, 65))) for i in range(20)), 10.0, sound=sound)
    assert count == 20
    told = subprocess.run([video_writing.find_ffmpeg(), "-i", str(out)], capture_output=True, text=True).stderr
    assert "Video: h264" in told
    assert "yuv420p" in told
    assert "Audio: aac" in told
    with Reader(out) as reader:
        frames = list(reader)
    assert [number_of(f.image) for f in frames] == list(range(20))
    assert reader.info.rate == pytest.approx(10.0)
    assert frames[0].image.shape[:2] == (48, 66)  # even sides, as the codec wants


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["pcm_u8", "adpcm_ms", "wmav2", "mp3", ""])
@pytest.mark.parametrize("seconds", [0.5, 8])
def test_sound_of_any_kind_and_length_costs_and_adds_no_frame(codec, seconds, tmp_path):
    sound = tmp_path / "with sound.avi"
    heard = ["-c:a", codec] if codec else ["-an"]
    subprocess.run(
        [video_writing.find_ffmpeg(), "-loglevel", "error",
         "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2",
         "-f", "lavfi", "-i", f"sine=duration={seconds}", *heard, str(sound)], check=True,
    )  # fmt: skip
    write_video(tmp_path / "out.mp4", (Frame(i, i / 10, picture(i)) for i in range(20)), 10.0, sound=sound)
    with Reader(tmp_path / "out.mp4") as reader:
        assert [number_of(f.image) for f in reader] == list(range(20))
    told = subprocess.run(
        [video_writing.find_ffmpeg(), "-i", str(tmp_path / "out.mp4")], capture_output=True, text=True
    ).stderr
    assert ("Audio: aac" in told) == bool(codec)
    length = re.search(r"Duration: 00:00:(\d+\.\d+)", told)
    assert 1.9 <= float(length[1]) <= 2.2 + 0.3 * (codec == "wmav2")  # whose blocks end late


@needs_ffmpeg
@pytest.mark.parametrize("late", [0.0, 0.5])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_stays_with_the_picture_that_begins_later(late, suffix, tmp_path):
    """A second of silence, then a tone: it is heard at the frame of that moment."""
    source, out = tmp_path / f"source.{suffix}", tmp_path / "out.mp4"
    tone = "aevalsrc=if(gte(t\\,1)\\,0.5*sin(2000*t)\\,0):d=3"
    subprocess.run(
        [video_writing.find_ffmpeg(), "-loglevel", "error", "-itsoffset", str(late),
         "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2", "-f", "lavfi", "-i", tone,
         "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", str(source)], check=True,
    )  # fmt: skip
    with Reader(source) as reader:
        assert write_video(out, reader, 10.0, sound=source) == 20
    raw = subprocess.run(
        [video_writing.find_ffmpeg(), "-loglevel", "error", "-i", str(out), "-map", "0:a", "-ac", "1", "-ar", "8000",
         "-f", "s16le", "-"], check=True, capture_output=True,
    ).stdout  # fmt: skip
    heard = np.flatnonzero(np.abs(np.frombuffer(raw, np.int16)) > 2000)[0] / 8000
    assert heard == pytest.approx(1 - late, abs=0.03)


@pytest.mark.parametrize("last", ["exit 3", "cat > /dev/null"])
def test_an_ffmpeg_that_complains_much_or_ends_early_holds_nobody_up(last, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\nyes 'a line of complaint' | head -n 20000 >&2\n{last}\n")
    program.chmod(0o755)
    monkeypatch.setattr(video_writing, "find_ffmpeg", lambda: str(program))
    taken = 0

    def frames():
        nonlocal taken
        for taken in range(5000):
            yield Frame(taken, taken / 10, picture(taken % 20))

    if last == "exit 3":
        with pytest.raises(VideoError, match=r"could not write .*out\.mp4: a line of complaint"):
            write_video(tmp_path / "out.mp4", frames(), 10.0)
        assert taken < 4999
    else:
        assert write_video(tmp_path / "out.mp4", frames(), 10.0) == 5000


def test_without_a_drawn_video_the_lines_are_there(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(video_writing, "find_ffmpeg", lambda: str(program))
    files = VideoFiles(tmp_path / "o.mp4", tmp_path / "o.jsonl")
    frames = stream(Counter(), (Frame(i, i / 10, picture(i % 20)) for i in range(300)))
    outcome = write_frames(frames, video.VideoInfo(10.0, 300, False), files, Painter())
    assert "it ended with code 3" in outcome.undrawn
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == outcome.frames == 300
    assert not (tmp_path / "o.mp4").exists()


@needs_ffmpeg
@pytest.mark.parametrize("rate", [10.0, 30000 / 1001])
def test_a_written_video_keeps_the_time_of_each_frame(tmp_path, rate):
    """A steady rate to the tick, and uneven times to the millisecond."""
    steady = [i / rate for i in range(12)]
    uneven = [0.0, 0.1, 0.137, 0.5, 0.501, 1.25]
    for number, times in enumerate((steady, uneven)):
        out = tmp_path / f"{number}.mp4"
        write_video(out, (Frame(i, round(t, 3), picture(i)) for i, t in enumerate(times)), rate)
        with Reader(out) as reader:
            frames = list(reader)
        assert [number_of(f.image) for f in frames] == list(range(len(times)))
        np.testing.assert_allclose([f.time for f in frames], times, atol=0.0011)
        if times is steady:
            assert reader.info.rate == pytest.approx(rate, rel=1e-5)


def test_without_ffmpeg_opencv_writes_and_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writing, "find_ffmpeg", lambda: None)
    said = []
    write_video(tmp_path / "out.mp4", (Frame(i, i / 10, picture(i)) for i in range(10)), 10.0, say=said.append)
    assert len(said) == 1
    assert "browsers do not play it" in said[0]
    with Reader(tmp_path / "out.mp4") as reader:
        assert [number_of(f.image) for f in reader] == list(range(10))
    two = [Frame(0, 0.0, picture(0)), Frame(1, 0.1, picture(1, (40, 64)))]
    with pytest.raises(VideoError, match="a frame has 64x40 pixels, the first 64x48"):
        write_video(tmp_path / "two.mp4", two, 10.0, say=said.append)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (" V....D libopenh264          OpenH264\n V....D libx264              libx264 H.264", "libx264"),
        (" V....D libx264rgb           H.264 RGB\n V....D libopenh264          OpenH264", "libopenh264"),
        (" V.S... mpeg4                MPEG-4 part 2", None),
    ],
)
def test_an_ffmpeg_writes_h264_by_what_it_has_and_else_opencv_writes(listed, expected, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!/bin/sh\n[ $2 = -encoders ] && echo '{listed}'\necho $* >> '{tmp_path}/asked'\ncat > $0.in\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(video_writing, "find_ffmpeg", lambda: str(program))
    said = []
    frames = [Frame(i, i / 10, picture(i)) for i in range(10)]
    write_video(tmp_path / "out.mp4", frames, 10.0, say=said.append)
    if expected:
        assert f"-c:v {expected} " in (tmp_path / "asked").read_text()
        assert not said
    else:
        assert said == [
            "the ffmpeg of this machine writes no H.264: the video is MPEG-4 without sound, and browsers do not play it"
        ]
        with Reader(tmp_path / "out.mp4") as reader:
            assert [number_of(f.image) for f in reader] == list(range(10))


def test_an_ffmpeg_that_is_killed_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    """As a limit of a file's size does it, without a word of ffmpeg."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nkill -XFSZ $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(video_writing, "find_ffmpeg", lambda: str(program))
    with pytest.raises(VideoError, match=r"could not write .*out\.mp4: it was ended by signal"):
        write_video(tmp_path / "out.mp4", [Frame(0, 0.0, picture(0))], 10.0)
    assert not (tmp_path / "out.mp4").exists()


def test_a_video_that_cannot_be_finished_leaves_what_was_there(tmp_path):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"before")

    def images():
        yield Frame(0, 0.0, picture(0))
        raise ImageError("the third frame is bad")

    with pytest.raises(ImageError):
        write_video(out, images(), 10.0, say=lambda line: None)
    assert out.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
