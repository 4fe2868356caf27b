// CUDA for a torch that is built without it: a device guard and hooks that do nothing, so that autograd, the accelerator API
// and tensors that say `cuda` are accepted. No memory is allocated and no kernel runs; LLMFT_PRETENDED_GPUS is their number.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstdlib>
#include <map>

namespace pretended {

thread_local c10::DeviceIndex current = 0;

c10::DeviceIndex count() {
  const char* value = std::getenv("LLMFT_PRETENDED_GPUS");
  return value ? static_cast<c10::DeviceIndex>(std::atoi(value)) : 1;
}

c10::DeviceIndex exchange(c10::DeviceIndex index) {
  const auto before = current;
  if (index >= 0) current = index;
  return before;
}

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  static c10::Device cuda(c10::DeviceIndex index) { return {c10::DeviceType::CUDA, index}; }
  static c10::Stream only_stream(c10::Device device) { return c10::Stream(c10::Stream::DEFAULT, device); }

  c10::Device exchangeDevice(c10::Device device) const override { return cuda(exchange(device.index())); }
  c10::Device getDevice() const override { return cuda(current); }
  void setDevice(c10::Device device) const override { exchange(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { exchange(device.index()); }
  c10::DeviceIndex deviceCount() const noexcept override { return count(); }
  c10::Stream getStream(c10::Device device) const noexcept override { return only_stream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return only_stream(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return only_stream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return only_stream(stream.device()); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

// Has a state, and draws nothing: the numbers are drawn on the CPU, with a copy of the state.
struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(c10::DeviceIndex index) {
    device_ = Guard::cuda(index);
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::CUDA);
  }
};

static c10::impl::DeviceGuardImplRegistrar registrar(c10::DeviceType::CUDA, new Guard());

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}

  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return count(); }
  c10::DeviceIndex deviceCount() const override { return count(); }
  c10::DeviceIndex current_device() const override { return current; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex index) const override { exchange(index); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override { return exchange(index); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override { return exchange(index); }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<Generator>(index < 0 ? current : index);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    static std::map<c10::DeviceIndex, at::Generator> generators;
    if (index < 0) index = current;
    return generators.try_emplace(index, getNewGenerator(index)).first->second;
  }
  void deviceSynchronize(c10::DeviceIndex) const override {}
};

}  // namespace pretended

namespace at {
using CUDAHooks = pretended::Hooks;  // the name under which torch asks for them
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at
