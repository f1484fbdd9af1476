// Command probe tries what a build must not do, and prints what happened.
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

func dial(network, address string) error {
	connection, err := net.Dial(network, address)
	if err == nil {
		_, err = connection.Write([]byte("x"))
	}
	return err
}

func read(path string) error {
	file, err := os.Open(path)
	if err == nil {
		_, err = file.Read(make([]byte, 1))
	}
	return err
}

func list(path string) error {
	_, err := os.ReadDir(path)
	return err
}

func socket(domain, kind, protocol int) error {
	_, err := syscall.Socket(domain, kind, protocol)
	return err
}

func pair(kind int) error {
	_, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
	return err
}

// A connection with the first packet (TCP Fast Open).
func fastOpen(port int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Sendto(fd, []byte("x"), 0x20000000, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	return err
}

func call(number uintptr, arguments ...uintptr) error {
	if _, _, err := syscall.Syscall(number, arguments[0], arguments[1], arguments[2]); err != 0 {
		return err
	}
	return nil
}

func start(flags uintptr) error {
	command := exec.Command("/bin/true")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	return command.Run()
}

func main() {
	port, pid, outside := os.Args[1], os.Args[2], os.Args[3]
	number, _ := strconv.Atoi(pid)
	tcp, _ := strconv.Atoi(port)
	_, listening := net.Listen("tcp", "127.0.0.1:0")
	var files syscall.Rlimit
	limit := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &files)
	if limit == nil && files.Max < 1<<40 {
		limit = syscall.EFBIG
	}
	_, session := syscall.Setsid()
	_, _, uring := syscall.Syscall(425, 1, 0, 0)
	var io error
	if uring == syscall.EACCES || uring == syscall.EPERM || uring == syscall.ENOSYS {
		io = uring
	}
	for _, probe := range []struct {
		name string
		err  error
	}{
		{"tcp", dial("tcp", "127.0.0.1:"+port)},
		{"fast open", fastOpen(tcp)},
		{"udp", dial("udp", "127.0.0.1:"+port)},
		{"udp6", dial("udp", "[::1]:"+port)},
		{"raw", socket(syscall.AF_INET, syscall.SOCK_RAW, 1)},
		{"packet", socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)},
		{"netlink", socket(syscall.AF_NETLINK, syscall.SOCK_RAW, 0)},
		{"unix", dial("unix", os.Getenv("HOME")+"/agent.sock")},
		{"abstract", dial("unix", "@vx-test-"+pid)},
		{"datagrams", pair(syscall.SOCK_DGRAM)},
		{"pair", pair(syscall.SOCK_STREAM)},
		{"io_uring", io},
		{"x32 socket", call(0x40000000+41, syscall.AF_INET, syscall.SOCK_DGRAM, 0)},
		{"clone3", call(435, 0, 0, 0)},
		{"user namespace", start(syscall.CLONE_NEWUSER)},
		{"process", start(0)},
		{"listen", listening},
		{"signal", syscall.Kill(number, syscall.SIGWINCH)},
		{"setsid", session},
		{"setpgid", syscall.Setpgid(0, 0)},
		{"unshare", syscall.Unshare(syscall.CLONE_NEWUSER)},
		{"ptrace", syscall.PtraceAttach(number)},
		{"mknod", syscall.Mknod(os.Getenv("TMPDIR")+"/device", syscall.S_IFCHR|0o600, 0x105)},
		{"environment", read("/proc/" + pid + "/environ")},
		{"command", read("/proc/" + pid + "/cmdline")},
		{"memory", read("/proc/" + pid + "/mem")},
		{"processes", list("/proc")},
		{"outside", read(outside + "/secret")},
		{"overwrite", os.WriteFile(outside+"/stray", nil, 0o600)},
		{"private keys", list("/etc/ssl/private")},
		{"certificates", list("/etc/ssl/certs")},
		{"shadow", read("/etc/shadow")},
		{"hosts", read("/etc/hosts")},
		{"cpus", read("/proc/cpuinfo")},
		{"service", list(os.Getenv("HOME") + "/../jobs")},
		{"database", os.WriteFile(os.Getenv("HOME")+"/../stray", nil, 0o600)},
		{"endless file", limit},
		{"temporary", os.WriteFile(os.Getenv("TMPDIR")+"/file", nil, 0o600)},
	} {
		if probe.err == nil {
			fmt.Println(probe.name + ": allowed")
		} else {
			fmt.Println(probe.name + ": denied")
		}
	}
}
