import json

from benchmarks import flops


def test_json_of_chosen_backbones(tmp_path, capsys):
    path = tmp_path / "new folder" / "flops.json"
    assert flops.main(["--instant", "--backbone", "mvitv1_b", "--json", str(path)]) == 0
    counts = json.loads(path.read_text())
    assert [count["name"] for count in counts] == ["mvitv1_b_16x4_224", "mvitv1_b_64x3_224"]
    assert set(counts[0]) == {"name", "gflops", "params", "paper_gflops"}
    assert "455.879" in capsys.readouterr().out
