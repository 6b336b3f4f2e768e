"""otp-keygen: what it makes, keeps, completes and refuses (B4, B5)."""
import hashlib
import itertools
import json
import os
import re
import subprocess
import threading

import pytest

from stack import BUILD, is_root

GENERATION = ["generate/mail-1.pub", "generate/pepper-1", "validate/pepper-1", "worker/mail-1.key"]
TICKET = ["generate/ticket-1", "validate/ticket-1"]  # of no generation: it does not rotate
FIRST = sorted(GENERATION + TICKET)
SECOND = [name.replace("-1", "-2") for name in GENERATION]


def keygen(*arguments):
    return subprocess.run([BUILD / "otp-keygen", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=20, check=False)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    assert keygen(folder).returncode == 0
    return folder


def test_b4_what_it_makes(keys):
    """B4: files of 32 bytes, mode 0400, in folders of mode 0700; peppers and ticket keys shared, nothing else alike."""
    found = files(keys)
    assert sorted(found) == FIRST
    assert all(len(key) == 32 for key in found.values()) and len(set(found.values())) == 4
    assert found["generate/pepper-1"] == found["validate/pepper-1"] and found["generate/ticket-1"] == found["validate/ticket-1"]
    for path in [keys, *keys.rglob("*")]:
        assert path.stat().st_mode & 0o7777 == (0o700 if path.is_dir() else 0o400), path


def test_keys_differ_between_runs(tmp_path):
    made = []
    for name in "abc":
        assert keygen(tmp_path / name).returncode == 0
        made += set(files(tmp_path / name).values())
    assert len(set(made)) == 12


def test_a_second_run_keeps_everything(keys):
    before = files(keys)
    done = keygen(keys)
    assert done.returncode == 0 and done.stdout.count("kept ") == 6 and "made" not in done.stdout
    assert files(keys) == before


def test_b5_rotation_adds_the_next_generation(keys):
    """B5: the old keys stay as they are; the new ones are others."""
    before = files(keys)
    done = keygen("--rotate", keys)
    assert done.returncode == 0, done.stderr
    after = files(keys)
    assert sorted(after) == sorted(FIRST + SECOND)
    assert {name: after[name] for name in FIRST} == before
    assert after["generate/pepper-2"] == after["validate/pepper-2"] and len(set(after.values())) == 7
    for path in keys.rglob("*-2*"):
        assert path.stat().st_mode & 0o7777 == 0o400


def test_b5_a_rotation_too_soon_is_refused(keys):
    """B5: programs know two generations. A third is made only when the files of the first are gone, which says that no code of it
    is live, or when told to."""
    assert keygen("--rotate", keys).returncode == 0
    before = files(keys)
    for kept in range(4):
        done = keygen("--rotate", keys)
        assert done.returncode == 1 and "still holds keys of generation 1" in done.stderr and "--force" in done.stderr
        assert files(keys) == before
        (keys / GENERATION[kept]).unlink()  # all four must go
        del before[GENERATION[kept]]
    assert keygen("--rotate", keys).returncode == 0
    assert sorted(files(keys)) == sorted(TICKET + SECOND + [name.replace("-1", "-3") for name in GENERATION])


def test_a_rotation_is_forced(keys):
    assert keygen("--rotate", keys).returncode == 0
    assert keygen("--rotate", "--force", keys).returncode == 0
    assert len(files(keys)) == 14


# Keys reach the folders in this order, so an interrupted run leaves some first ones of it.
ORDER = ["validate/pepper-%d", "generate/pepper-%d", "worker/mail-%d.key", "generate/mail-%d.pub"]


@pytest.mark.parametrize("options", [[], ["--rotate"]])
@pytest.mark.parametrize("made", range(1, 4))
@pytest.mark.parametrize("generation", [1, 2])
def test_an_interrupted_run_is_completed(keys, generation, made, options):
    """With the keys that are there, by the next run, whether it rotates or not."""
    if generation == 2:
        assert keygen("--rotate", keys).returncode == 0
    before = files(keys)
    for name in ORDER[made:]:
        (keys / (name % generation)).unlink()
    stale = keys / (ORDER[made].replace("/", "/.") % generation + ".new")
    stale.write_bytes(b"half")
    done = keygen(*options, keys)
    assert done.returncode == 0, done.stderr
    after = files(keys)
    assert sorted(after) == sorted(before)  # nothing half-done stays behind
    for name in ORDER[:made]:
        assert after[name % generation] == before[name % generation]
    assert after["generate/pepper-%d" % generation] == after["validate/pepper-%d" % generation]
    if made >= 3:
        assert after == before


def test_any_missing_files_are_made_again_or_named(tmp_path):
    """Every subset of the files: completed with the keys that are left, or refused if the private key is lost."""
    for index, kept in enumerate(itertools.chain.from_iterable(itertools.combinations(FIRST, n) for n in range(7))):
        folder = tmp_path / str(index)
        assert keygen(folder).returncode == 0
        before = files(folder)
        for name in set(FIRST) - set(kept):
            (folder / name).unlink()
        done = keygen(folder)
        if "generate/mail-1.pub" in kept and "worker/mail-1.key" not in kept:
            assert done.returncode == 1 and "worker/mail-1.key: is missing while its public half exists" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        after = files(folder)
        assert sorted(after) == FIRST and after["generate/pepper-1"] == after["validate/pepper-1"]
        assert after["generate/ticket-1"] == after["validate/ticket-1"]
        assert all(after[name] == before[name] for name in kept)
        if "worker/mail-1.key" in kept:
            assert after["generate/mail-1.pub"] == before["generate/mail-1.pub"]


@pytest.mark.parametrize("options", [[], ["--rotate"]])
@pytest.mark.parametrize("name", TICKET)
def test_a_ticket_key_is_made_if_it_is_missing_and_does_not_rotate(keys, name, options):
    """People hold tickets for half a year. In folders of before there were tickets there is none."""
    before = files(keys)
    (keys / name).unlink()
    assert keygen(*options, keys).returncode == 0
    after = files(keys)
    assert {name: after[name] for name in TICKET} == {name: before[name] for name in TICKET}
    for name in TICKET:
        (keys / name).unlink()
    assert keygen(keys).returncode == 0
    after = files(keys)
    assert after[TICKET[0]] == after[TICKET[1]] != before[TICKET[0]]
    assert not [name for name in after if "ticket-2" in name]


@pytest.mark.parametrize("name", TICKET)
def test_a_newer_ticket_key_is_given_to_the_other(keys, name):
    """Who wants to replace the key of tickets by and by, makes the next one; it is copied to the other program's folder."""
    path = keys / name.replace("-1", "-2")
    path.write_bytes(bytes(range(32)))
    path.chmod(0o400)
    assert keygen(keys).returncode == 0
    after = files(keys)
    assert after["generate/ticket-2"] == after["validate/ticket-2"] == bytes(range(32)) and len(after) == 8


@pytest.mark.parametrize("name", ["generate/pepper-1", "generate/mail-1.pub", "validate/ticket-1"])
def test_halves_that_do_not_belong_together_are_refused(keys, name):
    path = keys / name
    path.chmod(0o600)
    path.write_bytes(bytes(range(32)))
    path.chmod(0o400)
    before = files(keys)
    done = keygen(keys)
    assert done.returncode == 1 and f"{name}: does not belong to its counterpart" in done.stderr
    assert files(keys) == before


@pytest.mark.parametrize("content, mode, reason", [(b"x" * 31, 0o400, "is not 32 bytes long"),
                                                   (bytes(32), 0o400, "holds only zeros"),
                                                   (b"x" * 32, 0o444, "chmod 0400")])
def test_b4_a_wrong_key_is_named_and_left_alone(keys, content, mode, reason):
    """B4: nothing is overwritten, whatever lies there."""
    path = keys / "validate" / "pepper-1"
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)
    before = files(keys)
    done = keygen(keys)
    assert done.returncode == 1 and reason in done.stderr and str(path) in done.stderr
    assert files(keys) == before


@pytest.mark.skipif(not is_root(), reason="only root writes to folders of others")
@pytest.mark.parametrize("plant", ["symbolic", "hard", "dangling", "folder"])
def test_b3_nothing_planted_in_a_programs_folder_is_followed(keys, plant):
    """B3: a program that was taken over puts a link into its folder, and root runs otp-keygen: the worker's key, which the link
    leads to, is neither read, nor copied, nor written."""
    for folder, owner in (("generate", 4711), ("validate", 4712), ("worker", 4713)):
        for path in (keys / folder, *(keys / folder).iterdir()):
            os.chown(path, owner, owner)
    target, link = keys / "worker" / "mail-1.key", keys / "validate" / "pepper-1"
    secret = target.read_bytes()
    link.unlink()
    if plant == "symbolic":
        link.symlink_to(target)
    elif plant == "hard":
        os.link(target, link)
    elif plant == "dangling":
        link.symlink_to(keys / "worker" / "mail-9.key")
    else:
        (keys / "validate").rename(keys / "real")
        (keys / "validate").symlink_to(keys / "worker")
    before = files(keys)
    done = keygen(keys)
    assert done.returncode == 1 and "validate" in done.stderr, done
    assert files(keys) == before
    keygen("--rotate", keys)  # adds new files, and looks at no old one
    added = {name: content for name, content in files(keys).items() if name not in before}
    assert secret not in added.values() and (plant != "folder" or not added)
    assert target.read_bytes() == secret and target.stat().st_uid == 4713


def api_key(name, folder):
    return subprocess.run([BUILD / "otp-keygen", "--api-key", name], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=20, check=False)


@pytest.mark.parametrize("name", ["shop", "a", "-", "0-9", "a" * 32])
def test_an_api_key_is_printed_once_with_its_hash(tmp_path, name):
    """The key of 256 bits, and the member of the applications' file: its BLAKE2b-256. No file is written."""
    keys = set()
    for _ in range(3):
        done = api_key(name, tmp_path)
        key, member = done.stdout.splitlines()
        assert done.returncode == 0 and done.stderr == "" and re.fullmatch(r"otp_[A-Za-z0-9_-]{43}", key), done
        digest = hashlib.blake2b(key.encode(), digest_size=32).hexdigest()
        assert json.loads("{%s}" % member) == {name: {"key_hashes": [digest]}}
        keys.add(key)
    assert len(keys) == 3 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Shop", "my shop", "a" * 33, "caf\u00e9", "shop.example", "../x"])
def test_an_api_key_of_no_application_is_refused(tmp_path, name):
    done = api_key(name, tmp_path)
    assert done.returncode == 2 and done.stdout == "", done
    assert "must be the application's name in APPLICATIONS: 1 to 32 characters of a to z, 0 to 9 and \"-\"" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_rotation_needs_keys(tmp_path):
    done = keygen("--rotate", tmp_path / "keys")
    assert done.returncode == 1 and "run otp-keygen without --rotate first" in done.stderr
    assert files(tmp_path) == {}


def test_runs_side_by_side_agree(tmp_path):
    """One makes the keys, the others keep them."""
    folder, outputs = tmp_path / "keys", []
    threads = [threading.Thread(target=lambda: outputs.append(keygen(folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.returncode for done in outputs] == [0] * 8, [done.stderr for done in outputs]
    assert sorted(files(folder)) == FIRST
    assert sum("made" in done.stdout for done in outputs) == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "keys", tmp_path / "no" / "keys"):
        done = keygen(path)
        assert done.returncode == 1 and done.stderr.startswith(f"otp-keygen: {path}: ")


@pytest.mark.parametrize("arguments", [[], ["--rotate"], ["--bad"], [""], ["a", "b"], ["--rotate", "a", "b"], ["--rotate", "--rotate"],
                                       ["--force", "a"], ["--rotate", "--force"], ["--force", "--rotate", "a"], ["--rotate", "--force", "a", "b"],
                                       ["--api-key"], ["--api-key", ""], ["--api-key", "a", "b"], ["--rotate", "--api-key", "a"]])
def test_wrong_arguments(tmp_path, arguments):
    done = subprocess.run([BUILD / "otp-keygen", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=20, check=False)
    assert done.returncode == 2 and "Usage: otp-keygen [--rotate [--force]] DIR" in done.stderr and done.stdout == ""
    assert list(tmp_path.iterdir()) == []
