// A client of the build service as a Go program has it: what protoc generates of the protobuf files, over each of the
// three protocols. It says what came back, a line of JSON a call.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"

	requestv1 "client/api/request/v1"
	servicev1connect "client/api/service/v1/servicev1connect"
)

// call is one call, as the story asks for it.
type call struct {
	Protocol string `json:"protocol"`
	Token    string `json:"token"`
	Version  string `json:"version"`
	Module   string `json:"module"`
	Tag      string `json:"tag"`
	Os       string `json:"os"`
	Arch     string `json:"arch"`
	Race     bool   `json:"race"`
	JSON     bool   `json:"json"`
	Gzip     bool   `json:"gzip"`
	Deadline int    `json:"deadline"`
	// RequestID and Open are what RoadRunner's middleware does: it sends an id, and opens the path as a file.
	RequestID string `json:"request_id"`
	Open      bool   `json:"open"`
}

// answer is what came back.
type answer struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	RetryAfter string `json:"retry_after"`
	Path       string `json:"path"`
	Logs       string `json:"logs"`
	Size       int64  `json:"size"`
	Mode       string `json:"mode"`
}

func main() {
	// gRPC needs HTTP/2, here without TLS.
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	http2 := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	calls := json.NewDecoder(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for calls.More() {
		var asked call
		if err := calls.Decode(&asked); err != nil {
			panic(err)
		}
		client, options := http.DefaultClient, []connect.ClientOption{}
		switch asked.Protocol {
		case "connect":
		case "connect over HTTP/2":
			client = http2
		case "grpc":
			client, options = http2, append(options, connect.WithGRPC())
		case "grpc-web":
			options = append(options, connect.WithGRPCWeb())
		default:
			panic(asked.Protocol)
		}
		if asked.JSON {
			options = append(options, connect.WithProtoJSON())
		}
		if asked.Gzip {
			options = append(options, connect.WithSendGzip())
		}
		if err := answers.Encode(ask(servicev1connect.NewBuildServiceClient(client, os.Args[1], options...), asked)); err != nil {
			panic(err)
		}
	}
}

func ask(client servicev1connect.BuildServiceClient, asked call) answer {
	ctx := context.Background()
	if asked.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(asked.Deadline)*time.Millisecond)
		defer cancel()
	}
	request := connect.NewRequest(&requestv1.BuildRequest{
		RequestId:      asked.RequestID,
		RrVersion:      asked.Version,
		TargetPlatform: &requestv1.Platform{Os: asked.Os, Arch: asked.Arch},
		Plugins:        []*requestv1.Plugin{{ModuleName: asked.Module, Tag: asked.Tag}},
		Race:           asked.Race,
	})
	if asked.Token != "" {
		request.Header().Set("Authorization", "Bearer "+asked.Token)
	}
	response, err := client.Build(ctx, request)
	var failed *connect.Error
	switch {
	case err == nil:
		answered := answer{Path: response.Msg.GetPath(), Logs: response.Msg.GetLogs()}
		if asked.Open {
			file, err := os.Open(answered.Path)
			if err != nil {
				panic(err)
			}
			defer file.Close()
			info, err := file.Stat()
			if err != nil {
				panic(err)
			}
			answered.Size, answered.Mode = info.Size(), info.Mode().String()
		}
		return answered
	case errors.As(err, &failed):
		return answer{Code: failed.Code().String(), Message: failed.Message(), RetryAfter: failed.Meta().Get("Retry-After")}
	default:
		panic(err)
	}
}
