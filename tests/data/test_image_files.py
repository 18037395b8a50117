"""Finding the image files that an annotation file names."""

import os
import unicodedata

import pytest

from det_losses.data.image_files import locate_images


@pytest.fixture
def folder(tmp_path):
    """Make an image folder: ``folder("a.jpg", "sub/b.jpg")`` returns its path."""

    def make(*names):
        root = tmp_path / "photos"
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
        return str(root)

    return make


NFC = "Käse.jpg"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(
    ("on_disk", "in_json"),
    [
        ("sub/b.jpg", "sub\\b.jpg"),
        ("sub/b.jpg", ".\\sub\\b.jpg"),
        (NFC, NFD),
        (NFD, NFC),
        (f"{NFD}/{NFD}", f"{NFC}/{NFC}"),
        ("a.JPG", "a.jpg"),
        ("a.jpg", "a.JPG"),
        ("my photo.jpg", "my%20photo.jpg"),
        ("my%20photo.jpg", "my photo.jpg"),
        (f"x y/{NFD[:-3]}JPG", f"x%20y\\{NFC}"),
    ],
)
def test_other_spellings_are_found_and_told(folder, on_disk, in_json):
    root = folder(on_disk, "another.jpg")
    found, notes = locate_images(root, [in_json, "another.jpg"])
    assert os.path.samefile(f"{root}/{found[0]}", f"{root}/{on_disk}")
    assert notes == [f"file names spelled differently on disk (1): {in_json} is {found[0]}"]


def test_the_exact_name_is_preferred(folder):
    names = ["a.jpg", "a.JPG", "my%20photo.jpg", "my photo.jpg", "back\\slash.jpg"]
    assert locate_images(folder(*names), names) == (names, [])


@pytest.mark.parametrize(
    ("on_disk", "in_json", "hint"),
    [
        (["b.jpg"], "images\\b.jpg", "b.jpg is directly in this folder: remove the rest of its"),
        (["b.jpg"], "C:\\me\\b.jpg", "b.jpg is directly in this folder"),
        (["b.jpg"], "photos/b.jpg", "the first is photos/b.jpg. Is the image folder /"),
        (["IMG_0001.jpg"], "img_0001.jpg", "Did you mean 'IMG_0001.jpg'?"),
        (["a.jpeg"], "a.jpg", "Did you mean 'a.jpeg'"),
        (["sub/image1.png"], "sub/image1.jpg", "Did you mean 'sub/image1.png'?"),
        (["a.JPG", "a.Jpg"], "a.jpg", "Did you mean 'a.J"),  # two candidates: not guessed
        (["other.jpg"], "1234.jpg", "the first is 1234.jpg. Are the file names"),
    ],
)
def test_a_missing_file_gets_a_hint(folder, on_disk, in_json, hint):
    with pytest.raises(FileNotFoundError, match=r"1 of 1 image is missing") as error:
        locate_images(folder(*on_disk), [in_json])
    assert hint in str(error.value)


@pytest.mark.parametrize("way", ["..", "absolute", "link", "linked folder", "backslash"])
def test_files_outside_the_folder_are_refused_unless_allowed(folder, tmp_path, way):
    root = folder("a.jpg")
    (tmp_path / "secret").mkdir()
    secret = tmp_path / "secret" / "s.jpg"
    secret.touch()
    os.symlink(secret, f"{root}/link.jpg")
    os.symlink(secret.parent, f"{root}/linked")
    name = {
        "..": "../secret/s.jpg",
        "absolute": str(secret),
        "link": "link.jpg",
        "linked folder": "linked/s.jpg",
        "backslash": "..\\secret\\s.jpg",
    }[way]
    with pytest.raises(ValueError, match=r"1 of 2 images is outside .*--allow-outside"):
        locate_images(root, ["a.jpg", name])
    found = locate_images(root, ["a.jpg", name], allow_outside=True)[0]
    assert os.path.samefile(os.path.join(root, found[1]), secret)


def test_with_several_folders_files_between_them_are_outside(folder):
    root = folder("a/1.jpg", "b/2.jpg", "secret.jpg", "c/3.jpg")
    names, roots = ["a/1.jpg", "b/2.jpg"], [f"{root}/a", f"{root}/b"]
    assert locate_images(root, names, roots=roots) == (names, [])
    for other in ("secret.jpg", "c/3.jpg", "a/../secret.jpg"):
        with pytest.raises(ValueError, match="1 of 3 images is outside this folder"):
            locate_images(root, [*names, other], roots=roots)


def test_links_and_paths_inside_the_folder_are_not_outside(folder, tmp_path):
    root = folder("a.jpg", "sub/b.jpg", "c.jpg")
    os.symlink("c.jpg", f"{root}/link.jpg")
    os.symlink(root, tmp_path / "other name")
    names = ["sub/../a.jpg", f"{root}/sub/b.jpg", "link.jpg"]
    for path in (root, str(tmp_path / "other name")):
        assert locate_images(path, names) == (names, [])


@pytest.mark.parametrize("again", ["a.jpg", "./a.jpg", "sub/../a.jpg", "link.jpg", "a.JPG"])
def test_one_file_under_two_names_is_refused(folder, again):
    root = folder("a.jpg", "b.jpg", "sub/c.jpg")
    os.symlink("a.jpg", f"{root}/link.jpg")
    with pytest.raises(ValueError, match=r"1 file listed twice in 'images', the first is a\.jpg"):
        locate_images(root, ["a.jpg", "b.jpg", again])


def test_missing_files_can_be_left_to_the_reader(folder):
    names = ["a.jpg", "b.jpg", "sub\\c.jpg"]
    assert locate_images(folder("a.JPG"), names, skip_missing=True)[0] == ["a.JPG", *names[1:]]


def test_a_broken_link_is_left_to_the_reader(folder):
    root = folder("a.jpg")
    os.symlink("nowhere.jpg", f"{root}/broken.jpg")
    assert locate_images(root, ["broken.jpg"]) == (["broken.jpg"], [])
