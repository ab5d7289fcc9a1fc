#!/usr/bin/env bash
# Makes a machine a node: Python, the packages at the versions of constraints.txt, and what every login shell must know.
# Where that was done already for the same packages, as in a machine image of your own, nothing is downloaded.
set -euo pipefail

project=$HOME/rlprune environment=$HOME/rlprune-env
python=3.12 uv=0.13.9

mark=$HOME/rlprune-env.made  # written last: an environment that is half made has none
wanted=$(cat "$project/pyproject.toml" "$project/clusters/constraints.txt" | sha256sum | cut -d ' ' -f 1)

if [ ! -x "$environment/bin/ray" ] || [ "$(cat "$mark" 2> /dev/null)" != "$wanted" ]; then
    rm -f "$mark"
    curl --location --silent --show-error --fail --retry 5 "https://astral.sh/uv/$uv/install.sh" \
        | env UV_INSTALL_DIR="$HOME/.local/bin" UV_NO_MODIFY_PATH=1 sh
    "$HOME/.local/bin/uv" venv --clear --seed --python "$python" "$environment"
    "$HOME/.local/bin/uv" pip install --python "$environment/bin/python" \
        --constraint "$project/clusters/constraints.txt" --editable "$project[cluster]"
    echo "$wanted" > "$mark"
fi

# shellcheck disable=SC2016  # expanded by the shells that read it
line='export PATH="$HOME/rlprune-env/bin:$PATH" PYTHONPATH="$HOME/rlprune" RAY_AUTH_MODE=token'
grep --quiet --line-regexp --fixed-strings "$line" "$HOME/.bashrc" || printf '\n%s\n' "$line" >> "$HOME/.bashrc"
