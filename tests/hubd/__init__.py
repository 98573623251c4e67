"""hubd: a small server that speaks the Hugging Face Hub's HTTP API, for tests on loopback.

    python -m tests.hubd --data DIR --port 8640
    export HF_ENDPOINT=http://127.0.0.1:8640 HF_TOKEN=hf_test HF_HUB_DISABLE_XET=1   # before huggingface_hub is imported

Models, spaces and data sets are real bare git repositories (DIR/repos/<kind>s/<owner>/<name>.git) and large files real LFS
objects (DIR/lfs/<sha256>), so commit ids, blob ids, ETags and pointers are the true ones and ``git log`` shows what a client
did. A commit becomes visible by one compare-and-swap of the branch, after its objects are on disk: a killed server leaves
nothing half done, and one started again on the same folder goes on.

Tokens: ``hf_test`` writes as "user", ``hf_other`` as "other", ``hf_read`` only reads as "user".

Fault rules: PUT /_hubd/faults replaces them, DELETE clears them; GET /_hubd/log lists the requests seen, DELETE clears that.
A rule is {"match": "regex searched in 'METHOD /path'", "times": 2 (default: for ever), "skip": 1 (let so many pass first)}
and one of

    "status": 503                        answer with that status
    "cut": 0.5 | 1000                    drop the connection after that share, or number of bytes, of the response body
    "corrupt": true                      flip the first byte of the response body
    "delay": 2.0                         answer late
    "die": "before-ref" | "after-ref"    kill ourselves in the commit, just before or after the branch moves
    "lose": true                         do the work, then drop the connection without an answer

Needs uvicorn, pyyaml and git.
"""
