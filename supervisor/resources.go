package supervisor

import (
	"fmt"
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// resourcesOf turns a request into the OCI's resources. A zero leaves the
// value as it is, so it is not in the result.
func resourcesOf(request *api.UpdateResource) (*specs.LinuxResources, error) {
	if err := checkResources(request); err != nil {
		return nil, err
	}
	resources := &specs.LinuxResources{}
	if request.CpuShares != 0 || request.CpuPeriod != 0 || request.CpuQuota != 0 || request.CpusetCpus != "" || request.CpusetMems != "" {
		resources.CPU = &specs.LinuxCPU{
			Shares: unlessZero(request.CpuShares), Period: unlessZero(request.CpuPeriod), Quota: unlessZero(int64(request.CpuQuota)),
			Cpus: request.CpusetCpus, Mems: request.CpusetMems,
		}
	}
	if request.MemoryLimit != 0 || request.MemorySwap != 0 || request.MemoryReservation != 0 || request.KernelTCPMemoryLimit != 0 {
		resources.Memory = &specs.LinuxMemory{
			Limit: unlessZero(int64(request.MemoryLimit)), Swap: unlessZero(int64(request.MemorySwap)), // 2^64-1 becomes -1: unlimited
			Reservation: unlessZero(int64(request.MemoryReservation)), KernelTCP: unlessZero(int64(request.KernelTCPMemoryLimit)),
		}
	}
	if request.PidsLimit != 0 {
		resources.Pids = &specs.LinuxPids{Limit: &request.PidsLimit}
	}
	var err error
	resources.BlockIO, err = blockIOOf(request)
	return resources, err
}

// blockIOOf is nil if the request changes nothing of it.
func blockIOOf(request *api.UpdateResource) (*specs.LinuxBlockIO, error) {
	blockIO := &specs.LinuxBlockIO{
		Weight: unlessZero(uint16(request.BlkioWeight)), LeafWeight: unlessZero(uint16(request.BlkioLeafWeight)),
	}
	changed := blockIO.Weight != nil || blockIO.LeafWeight != nil
	for i, one := range request.BlkioWeightDevice {
		field := fmt.Sprintf("resources.blkioWeightDevice[%d]", i)
		if err := checkWeightDevice(field, one); err != nil {
			return nil, err
		}
		if one.Weight == 0 && one.LeafWeight == 0 {
			continue
		}
		device := specs.LinuxWeightDevice{Weight: unlessZero(uint16(one.Weight)), LeafWeight: unlessZero(uint16(one.LeafWeight))}
		device.Major, device.Minor = one.BlkIODevice.Major, one.BlkIODevice.Minor
		blockIO.WeightDevice, changed = append(blockIO.WeightDevice, device), true
	}
	for _, list := range []struct {
		field string
		given []*api.ThrottleDevice
		to    *[]specs.LinuxThrottleDevice
	}{
		{"blkioThrottleReadBpsDevice", request.BlkioThrottleReadBpsDevice, &blockIO.ThrottleReadBpsDevice},
		{"blkioThrottleWriteBpsDevice", request.BlkioThrottleWriteBpsDevice, &blockIO.ThrottleWriteBpsDevice},
		{"blkioThrottleReadIopsDevice", request.BlkioThrottleReadIopsDevice, &blockIO.ThrottleReadIOPSDevice},
		{"blkioThrottleWriteIopsDevice", request.BlkioThrottleWriteIopsDevice, &blockIO.ThrottleWriteIOPSDevice},
	} {
		var err error
		if *list.to, err = throttlesOf("resources."+list.field, list.given); err != nil {
			return nil, err
		}
		changed = changed || len(*list.to) > 0
	}
	if !changed {
		return nil, nil
	}
	return blockIO, nil
}

// throttlesOf leaves out devices whose rate is 0.
func throttlesOf(field string, given []*api.ThrottleDevice) (throttles []specs.LinuxThrottleDevice, err error) {
	for i, one := range given {
		if err := checkDevice(fmt.Sprintf("%s[%d]", field, i), one.GetBlkIODevice()); err != nil {
			return nil, err
		}
		if one.Rate == 0 {
			continue
		}
		throttle := specs.LinuxThrottleDevice{Rate: one.Rate}
		throttle.Major, throttle.Minor = one.BlkIODevice.Major, one.BlkIODevice.Minor
		throttles = append(throttles, throttle)
	}
	return throttles, nil
}

func unlessZero[Number int64 | uint64 | uint16](value Number) *Number {
	if value == 0 {
		return nil
	}
	return &value
}

func checkResources(request *api.UpdateResource) error {
	if err := checkWeight("resources.blkioWeight", request.BlkioWeight); err != nil {
		return err
	}
	if err := checkWeight("resources.blkioLeafWeight", request.BlkioLeafWeight); err != nil {
		return err
	}
	for _, bounded := range []struct {
		field string
		value uint64
	}{
		{"cpuQuota", request.CpuQuota}, {"memoryLimit", request.MemoryLimit}, {"memoryReservation", request.MemoryReservation},
		{"kernelTCPMemoryLimit", request.KernelTCPMemoryLimit},
	} {
		if bounded.value > math.MaxInt64 {
			return errdefs.InvalidArgument.Errorf("resources.%s: %d, expected at most %d", bounded.field, bounded.value, int64(math.MaxInt64))
		}
	}
	if request.MemorySwap > math.MaxInt64 && request.MemorySwap != math.MaxUint64 {
		return errdefs.InvalidArgument.Errorf("resources.memorySwap: %d, expected at most %d, or %d for no limit", request.MemorySwap, int64(math.MaxInt64), uint64(math.MaxUint64))
	}
	if request.PidsLimit < -1 {
		return errdefs.InvalidArgument.Errorf("resources.pidsLimit: %d, expected a number of processes, or -1 for no limit", request.PidsLimit)
	}
	// Linux takes no such limit since 5.16, and runtimes pass it over in silence.
	if request.KernelMemoryLimit != 0 {
		return errdefs.NotImplemented.Errorf("resources.kernelMemoryLimit: the kernel has no such limit any more")
	}
	return nil
}

// checkWeight accepts blkio's weights, and 0.
func checkWeight(field string, weight uint64) error {
	if weight != 0 && (weight < 10 || weight > 1000) {
		return errdefs.InvalidArgument.Errorf("%s: %d, expected 10 to 1000", field, weight)
	}
	return nil
}

func checkWeightDevice(field string, device *api.WeightDevice) error {
	if err := checkDevice(field, device.GetBlkIODevice()); err != nil {
		return err
	}
	if err := checkWeight(field+".weight", uint64(device.Weight)); err != nil {
		return err
	}
	return checkWeight(field+".leafWeight", uint64(device.LeafWeight))
}

func checkDevice(field string, device *api.BlockIODevice) error {
	if device == nil {
		return errdefs.InvalidArgument.Errorf("%s.blkIODevice: missing, expected a device's numbers", field)
	}
	if device.Major < 0 || device.Minor < 0 {
		return errdefs.InvalidArgument.Errorf("%s.blkIODevice: %d:%d, expected a device's numbers", field, device.Major, device.Minor)
	}
	return nil
}
