"""The cipher, and the file its key lives in."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sessions_adapters.fernet import FernetCipher, add_key, load_keys, load_or_create_keys
from sessions_core.errors import IncompatibleStoreError, InvalidError


def test_what_was_encrypted_can_be_decrypted_with_the_same_key_only() -> None:
    key = FernetCipher.generate_key()
    sealed = FernetCipher(key).encrypt(b"tr_dev_secret")
    assert b"secret" not in sealed
    assert FernetCipher(key).decrypt(sealed) == b"tr_dev_secret"
    assert FernetCipher(key.decode()).decrypt(sealed) == b"tr_dev_secret"
    with pytest.raises(IncompatibleStoreError, match="another encryption key"):
        FernetCipher(FernetCipher.generate_key()).decrypt(sealed)
    with pytest.raises(IncompatibleStoreError):
        FernetCipher(key).decrypt(sealed[:-4] + b"AAAA")


def test_a_wrong_key_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidError) as refusal:
        FernetCipher(b"swordfish")
    assert "swordfish" not in str(refusal.value)
    key = FernetCipher.generate_key()
    assert key.decode() not in repr(FernetCipher(key))


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "encryption.key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_or_create_keys(path), range(32)))
    assert len(keys) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    FernetCipher(load_or_create_keys(path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "encryption.key"
    load_or_create_keys(path)
    path.chmod(mode)
    with pytest.raises(IncompatibleStoreError, match=rf"encryption.key.*mode {mode:04o}.*chmod 600"):
        load_or_create_keys(path)


def test_a_file_without_a_key_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "encryption.key"
    path.touch(mode=0o600)
    with pytest.raises(IncompatibleStoreError, match="holds no encryption key"):
        load_or_create_keys(path)
    assert path.read_bytes() == b""


def test_a_key_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "encryption.key"
    folder.mkdir(mode=0o700)
    nowhere = tmp_path / "missing" / "encryption.key"
    for path in (folder, nowhere):
        with pytest.raises(IncompatibleStoreError, match=rf"{path} cannot be read or made"):
            load_or_create_keys(path)
    with pytest.raises(IncompatibleStoreError, match=rf"{nowhere} cannot be read"):
        load_keys(nowhere)


def test_a_key_can_be_loaded_without_ever_making_one(tmp_path: Path) -> None:
    path = tmp_path / "encryption.key"
    with pytest.raises(IncompatibleStoreError):
        load_keys(path)
    assert load_or_create_keys(path) == load_keys(path)


def test_the_first_of_several_keys_encrypts_and_all_decrypt() -> None:
    old, new = FernetCipher.generate_key(), FernetCipher.generate_key()
    sealed = FernetCipher(old).encrypt(b"secret")
    both = FernetCipher(new + b"\n" + old)
    assert both.decrypt(sealed) == b"secret"
    assert FernetCipher(new).decrypt(both.encrypt(b"secret")) == b"secret"
    with pytest.raises(IncompatibleStoreError):
        FernetCipher(old).decrypt(both.encrypt(b"secret"))


@pytest.mark.parametrize("keys", ["", "  ", "swordfish", f"{'A' * 43}= swordfish"])
def test_what_is_no_list_of_keys_is_refused(keys: str) -> None:
    with pytest.raises(InvalidError):
        FernetCipher(keys)


def test_a_new_key_comes_first_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "encryption.key"
    first = load_or_create_keys(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: add_key(path), range(16)))
    keys = load_keys(path).split()
    assert len(set(keys)) == len(keys) == 17
    assert keys[-1] == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_key_may_be_the_first_one(tmp_path: Path) -> None:
    add_key(tmp_path / "encryption.key")
    FernetCipher(load_keys(tmp_path / "encryption.key"))


def test_a_file_that_is_refused_gets_no_new_key(tmp_path: Path) -> None:
    path = tmp_path / "encryption.key"
    path.touch(mode=0o600)
    with pytest.raises(IncompatibleStoreError, match="holds no encryption key"):
        add_key(path)
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_driver_names_the_extra() -> None:
    script = "import sys; sys.modules['cryptography.fernet'] = None; import sessions_adapters.fernet"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Encrypting root keys needs cryptography: pip install 'sessions[keys]'" in done.stderr
