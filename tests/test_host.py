"""What the host keeps of what it sent, and which generator draws what."""

import torch

from sora2.host import SOURCE, Arriving, _packed, _part, noise_generator, on_host, send


def test_tensors_packed_into_one_transfer_come_out_as_they_went_in():
    tensors = [
        torch.rand(3, 5),
        torch.arange(7) > 2,
        torch.arange(4),
        torch.zeros(0, 3),
        torch.rand(2, 2).double(),
    ]
    buffer, starts = _packed(tensors)
    assert buffer.dtype == torch.uint8 and all(start % 16 == 0 for start in starts)
    for tensor, start in zip(tensors, starts, strict=True):
        assert torch.equal(_part(buffer, start, tensor), tensor)


def test_on_the_cpu_nothing_is_sent():
    tensors = [torch.rand(3), torch.rand(2)]
    assert all(a is b for a, b in zip(send(tensors, "cpu"), tensors, strict=True))
    assert on_host(tensors[0]) is tensors[0]


def test_what_was_sent_is_read_on_the_host_and_what_was_made_of_it_is_not():
    source, sent = torch.rand(3), torch.empty(3, device="meta")
    setattr(sent, SOURCE, source)
    assert on_host(sent) is source
    assert not hasattr(sent * 2, SOURCE) and not hasattr(sent.detach(), SOURCE)


def test_noise_comes_from_the_generator_itself_where_that_lives():
    generator = torch.Generator().manual_seed(3)
    assert noise_generator(generator, "cpu") is generator


def test_what_arrives_is_what_it_was_when_it_was_sent():
    x = torch.tensor([1.0, 2.0])
    arriving = Arriving(x)
    x.zero_()
    assert arriving.read().tolist() == [1.0, 2.0]
