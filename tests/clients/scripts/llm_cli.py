"""llm, the command: a model for chats, one for completions, and embeddings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

URL, WHAT = sys.argv[1:3]
MODELS = f"""
- model_id: router
  model_name: auto
  api_base: "{URL}/v1"
  supports_tools: true
  supports_schema: true
- model_id: router-text
  model_name: auto
  api_base: "{URL}/v1"
  completion: true
"""
TOOL = '''
def get_weather(city: str) -> str:
    """The weather in a city"""
    return "18 degrees in " + city
'''


def llm(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("llm")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


with tempfile.TemporaryDirectory() as folder:
    os.environ["LLM_USER_PATH"] = folder
    (Path(folder) / "extra-openai-models.yaml").write_text(MODELS)
    assert llm("-m", "router", "Say hello.", "-o", "max_tokens", "20").strip()
    assert llm("-m", "router", "Say hello.", "--no-stream", "-o", "max_tokens", "20").strip()
    assert llm("-m", "router-text", "Once upon a time", "-o", "max_tokens", "5").strip()
    if WHAT == "everything":
        assert "18" in llm("-m", "router", "--functions", TOOL, "What is the weather in Paris?")
        filled = llm("-m", "router", "--schema", "city,degrees int", "The weather?")
        assert json.loads(filled) == {"city": "Paris", "degrees": 18}
sys.stdout.write("ok\n")
