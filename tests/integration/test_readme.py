"""The README's commands to the letter: every sh block, in order, against a stack of ./dev on other ports."""
import os
import re
import subprocess
import tempfile

import pytest

from stack import ROOT, free_port

README = ROOT / "README.md"
SKIP = "<!-- not run by the tests:"


def blocks(text):
    """The ```sh blocks as (line number, script), without those that a comment right above excuses, with its reason."""
    found, lines = [], text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip() == "```sh":
            end = lines.index("```", number)
            above = next((text for text in reversed(lines[:number - 1]) if text.strip()), "")
            if not above.startswith(SKIP):
                found.append((number + 1, "\n".join(lines[number:end])))
    return found


def test_the_extractor():
    """Blocks in order, those of other languages and excused ones left out."""
    text = "a\n```sh\none\ntwo\n```\n```json\n{}\n```\n" + SKIP + " needs a server -->\n```sh\nthree\n```\n```sh\nfour\n```\n"
    assert blocks(text) == [(3, "one\ntwo"), (14, "four")]


@pytest.mark.skipif(not README.exists() or not (ROOT / "dev").exists(), reason="README.md or dev is not there yet")
def test_readme_flow():
    """Every sh block of the README succeeds: generate, the mail, validate 200, validate again 401 used."""
    text = README.read_text()
    scripts = blocks(text)
    assert scripts and any("validate-password" in script for _, script in scripts)
    with tempfile.TemporaryDirectory(prefix="otp-readme-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        port = free_port()
        local = os.environ.get("OTP_README_LOCAL", f"{folder}/local")
        env = {**os.environ, "OTP_LOCAL": local, "HTTPS_PORT": str(port), "SMTP_PORT": str(free_port())}
        # The whole README is one session of one shell: a later block uses the variables of an earlier one.
        script = "set -eu\n"
        for number, block in scripts:
            block = block.replace("localhost:8443", f"localhost:{port}").replace(".local/", f"{local}/")
            block = re.sub(r"^\./dev up$", "./dev up -d", block, flags=re.M)
            if re.search(r"^git clone|^cd otpd", block, re.M):
                block = "\n".join(line for line in block.splitlines() if not line.startswith(("git clone", "cd otpd")))
            script += f"echo '== README.md:{number}'\n{block}\n"
        try:
            done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=300, check=False)
        finally:
            subprocess.run(["./dev", "down"], cwd=ROOT, env=env, check=False, stdout=subprocess.DEVNULL, timeout=60)
        assert done.returncode == 0, done.stdout[-4000:]
        for expected in ("Password generated successfully! Please check your email.", "Password validated successfully! Enjoy your access.",
                         '"used"'):
            assert expected in done.stdout, done.stdout[-4000:]
