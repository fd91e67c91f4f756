BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE checkpoints (
	job_id VARCHAR(63) NOT NULL, 
	step INTEGER NOT NULL, 
	version VARCHAR(100) NOT NULL, 
	loss FLOAT NOT NULL, 
	create_time DATETIME NOT NULL, 
	PRIMARY KEY (job_id, step)
);
INSERT INTO "checkpoints" VALUES('job-mvecuy4dja',2,'models/job-mvecuy4dja/versions/1',2.36806436441838741302e-03,'2026-11-21 13:30:06.307836');
INSERT INTO "checkpoints" VALUES('job-mvecuy4dja',4,'models/job-mvecuy4dja/versions/3',1.04100431781262159347e-03,'2026-11-21 13:30:06.712694');
INSERT INTO "checkpoints" VALUES('job-ehwvsvbsru',2,'models/job-ehwvsvbsru/versions/1',2.36033299006521701812e-03,'2026-11-21 13:30:18.159867');
INSERT INTO "checkpoints" VALUES('job-ehwvsvbsru',4,'models/job-ehwvsvbsru/versions/3',1.03624933399260044097e-03,'2026-11-21 13:30:18.571522');
INSERT INTO "checkpoints" VALUES('job-hpfax376rx',2,'models/job-hpfax376rx/versions/1',2.56567005999386310577e-03,'2026-11-21 13:30:23.948853');
INSERT INTO "checkpoints" VALUES('job-hpfax376rx',4,'models/job-hpfax376rx/versions/3',2.10422882810235023498e-03,'2026-11-21 13:30:24.193289');
INSERT INTO "checkpoints" VALUES('job-8n7eaet3r4',2,'models/job-8n7eaet3r4/versions/1',1.5,'2026-11-21 13:30:28.088945');
INSERT INTO "checkpoints" VALUES('job-utm5ciu2tb',2,'models/job-utm5ciu2tb/versions/1',1.5,'2026-11-21 13:30:28.103784');
INSERT INTO "checkpoints" VALUES('job-fpptgsynqi',2,'models/job-fpptgsynqi/versions/1',1.5,'2026-11-21 13:30:28.122710');
INSERT INTO "checkpoints" VALUES('job-dyb3w55ip9',2,'models/job-dyb3w55ip9/versions/1',1.5,'2026-11-21 13:30:28.141919');
INSERT INTO "checkpoints" VALUES('job-zumrrzvdai',2,'models/job-zumrrzvdai/versions/1',1.5,'2026-11-21 13:30:28.166950');
CREATE TABLE job_events (
	job_id VARCHAR(63) NOT NULL, 
	sequence INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	body JSON NOT NULL, 
	create_time DATETIME NOT NULL, 
	PRIMARY KEY (job_id, sequence)
);
INSERT INTO "job_events" VALUES('job-mvecuy4dja',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:01.547427');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:01.556699');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',3,'data_report','{"rows": 40, "tokens": 1646, "trained_tokens": 497, "truncated_rows": 0, "duplicate_rows": 0, "sequences": 7, "stop_token_trained": true}','2026-11-21 13:30:03.606298');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',4,'note','{"text": "only 4 optimizer steps: 40 rows fit into 7 sequences of 256 tokens; the model will hardly change, raise num_epochs or set max_steps"}','2026-11-21 13:30:06.037316');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',5,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:06.044697');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',6,'progress','{"learning_rate": 0.000150090662536071, "epoch": 0.2857142857142857, "step": 2, "total_steps": 4, "loss": 0.0021176131667743903, "tokens_per_second": 2390.4578716806413, "eta_seconds": 0.2070762549999472}','2026-11-21 13:30:06.255590');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',7,'checkpoint','{"step": 2, "version": "models/job-mvecuy4dja/versions/1", "loss": 0.0023680643644183874}','2026-11-21 13:30:06.312171');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',8,'sample_chat','{"step": 2, "prompt": "Hello!", "answer": "Hello! How can I help you?"}','2026-11-21 13:30:06.429038');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',9,'sample_chat','{"step": 2, "prompt": "\u4f60\u597d", "answer": "\u4f60\u597d\uff01\u6709\u4ec0\u4e48\u53ef\u4ee5\u5e2e\u4f60\uff1f"}','2026-11-21 13:30:06.448851');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',10,'progress','{"learning_rate": 4.934798141786879e-10, "epoch": 0.5714285714285714, "step": 4, "total_steps": 4, "loss": 0.0012999120406601901, "tokens_per_second": 1451.9095885759473, "eta_seconds": 0.0}','2026-11-21 13:30:06.561019');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',11,'checkpoint','{"step": 4, "version": "models/job-mvecuy4dja/versions/3", "loss": 0.0010410043178126216}','2026-11-21 13:30:06.719302');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',12,'sample_chat','{"step": 4, "prompt": "Hello!", "answer": "Hello! How can I help you?"}','2026-11-21 13:30:06.760984');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',13,'sample_chat','{"step": 4, "prompt": "\u4f60\u597d", "answer": "\u4f60\u597d\uff01\u6709\u4ec0\u4e48\u53ef\u4ee5\u5e2e\u4f60\uff1f"}','2026-11-21 13:30:06.877774');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',14,'note','{"text": "registered models/lora/versions/1"}','2026-11-21 13:30:07.894449');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',15,'note','{"text": "merged, proved and registered models/lora/versions/2"}','2026-11-21 13:30:14.457327');
INSERT INTO "job_events" VALUES('job-mvecuy4dja',16,'state_changed','{"state": "succeeded", "reason": ""}','2026-11-21 13:30:14.463815');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:14.492675');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:14.497753');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',3,'data_report','{"rows": 40, "tokens": 1646, "trained_tokens": 497, "truncated_rows": 0, "duplicate_rows": 0, "sequences": 7, "stop_token_trained": true}','2026-11-21 13:30:16.347654');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',4,'note','{"text": "only 4 optimizer steps: 40 rows fit into 7 sequences of 256 tokens; the model will hardly change, raise num_epochs or set max_steps"}','2026-11-21 13:30:17.771421');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',5,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:17.778750');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',6,'progress','{"learning_rate": 1.5009066253607101e-05, "epoch": 0.2857142857142857, "step": 2, "total_steps": 4, "loss": 0.0021134454727871343, "tokens_per_second": 2667.533872048456, "eta_seconds": 0.185566475999849}','2026-11-21 13:30:17.987124');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',7,'checkpoint','{"step": 2, "version": "models/job-ehwvsvbsru/versions/1", "loss": 0.002360332990065217}','2026-11-21 13:30:18.162994');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',8,'progress','{"learning_rate": 4.934798141786878e-11, "epoch": 0.5714285714285714, "step": 4, "total_steps": 4, "loss": 0.0012971492729155142, "tokens_per_second": 2058.2701224507664, "eta_seconds": 0.0}','2026-11-21 13:30:18.270225');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',9,'checkpoint','{"step": 4, "version": "models/job-ehwvsvbsru/versions/3", "loss": 0.0010362493339926004}','2026-11-21 13:30:18.575029');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',10,'note','{"text": "registered models/full/versions/1"}','2026-11-21 13:30:19.177791');
INSERT INTO "job_events" VALUES('job-ehwvsvbsru',11,'state_changed','{"state": "succeeded", "reason": ""}','2026-11-21 13:30:19.185076');
INSERT INTO "job_events" VALUES('job-hpfax376rx',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:19.209588');
INSERT INTO "job_events" VALUES('job-hpfax376rx',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:19.214993');
INSERT INTO "job_events" VALUES('job-hpfax376rx',3,'data_report','{"rows": 40, "tokens": 1646, "trained_tokens": 497, "truncated_rows": 0, "duplicate_rows": 0, "sequences": 7, "stop_token_trained": true}','2026-11-21 13:30:21.159414');
INSERT INTO "job_events" VALUES('job-hpfax376rx',4,'note','{"text": "only 4 optimizer steps: 40 rows fit into 7 sequences of 256 tokens; the model will hardly change, raise num_epochs or set max_steps"}','2026-11-21 13:30:23.692605');
INSERT INTO "job_events" VALUES('job-hpfax376rx',5,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:23.698959');
INSERT INTO "job_events" VALUES('job-hpfax376rx',6,'progress','{"learning_rate": 0.000750453312680355, "epoch": 0.2857142857142857, "step": 2, "total_steps": 4, "loss": 0.002358628022193443, "tokens_per_second": 2027.642344240339, "eta_seconds": 0.24412758700009363}','2026-11-21 13:30:23.908038');
INSERT INTO "job_events" VALUES('job-hpfax376rx',7,'checkpoint','{"step": 2, "version": "models/job-hpfax376rx/versions/1", "loss": 0.002565670059993863}','2026-11-21 13:30:23.952136');
INSERT INTO "job_events" VALUES('job-hpfax376rx',8,'progress','{"learning_rate": 2.467399070893439e-09, "epoch": 0.5714285714285714, "step": 4, "total_steps": 4, "loss": 0.01669332981186588, "tokens_per_second": 2010.0681127495063, "eta_seconds": 0.0}','2026-11-21 13:30:24.159670');
INSERT INTO "job_events" VALUES('job-hpfax376rx',9,'checkpoint','{"step": 4, "version": "models/job-hpfax376rx/versions/3", "loss": 0.0021042288281023502}','2026-11-21 13:30:24.197410');
INSERT INTO "job_events" VALUES('job-hpfax376rx',10,'note','{"text": "registered models/qlora/versions/1"}','2026-11-21 13:30:25.344457');
INSERT INTO "job_events" VALUES('job-hpfax376rx',11,'state_changed','{"state": "succeeded", "reason": ""}','2026-11-21 13:30:25.348021');
INSERT INTO "job_events" VALUES('job-9zevw3pbn3',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:25.371822');
INSERT INTO "job_events" VALUES('job-9zevw3pbn3',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:25.379949');
INSERT INTO "job_events" VALUES('job-9zevw3pbn3',3,'state_changed','{"state": "failed", "reason": "40 rows have no answer left within max_length=8 tokens, the first is row 1; raise spec.max_length or shorten them"}','2026-11-21 13:30:28.055494');
INSERT INTO "job_events" VALUES('job-wh3wvt4r79',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.069174');
INSERT INTO "job_events" VALUES('job-wh3wvt4r79',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:28.073407');
INSERT INTO "job_events" VALUES('job-8n7eaet3r4',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.076705');
INSERT INTO "job_events" VALUES('job-8n7eaet3r4',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:28.080803');
INSERT INTO "job_events" VALUES('job-8n7eaet3r4',3,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:28.084127');
INSERT INTO "job_events" VALUES('job-8n7eaet3r4',4,'progress','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','2026-11-21 13:30:28.086548');
INSERT INTO "job_events" VALUES('job-utm5ciu2tb',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.091577');
INSERT INTO "job_events" VALUES('job-utm5ciu2tb',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:28.095634');
INSERT INTO "job_events" VALUES('job-utm5ciu2tb',3,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:28.098844');
INSERT INTO "job_events" VALUES('job-utm5ciu2tb',4,'progress','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','2026-11-21 13:30:28.101363');
INSERT INTO "job_events" VALUES('job-utm5ciu2tb',5,'state_changed','{"state": "pausing", "reason": "pause requested"}','2026-11-21 13:30:28.106389');
INSERT INTO "job_events" VALUES('job-fpptgsynqi',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.109892');
INSERT INTO "job_events" VALUES('job-fpptgsynqi',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:28.113888');
INSERT INTO "job_events" VALUES('job-fpptgsynqi',3,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:28.117093');
INSERT INTO "job_events" VALUES('job-fpptgsynqi',4,'progress','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','2026-11-21 13:30:28.120119');
INSERT INTO "job_events" VALUES('job-fpptgsynqi',5,'state_changed','{"state": "cancelling", "reason": "cancel requested"}','2026-11-21 13:30:28.125738');
INSERT INTO "job_events" VALUES('job-dyb3w55ip9',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.129063');
INSERT INTO "job_events" VALUES('job-dyb3w55ip9',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:28.133342');
INSERT INTO "job_events" VALUES('job-dyb3w55ip9',3,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:28.136820');
INSERT INTO "job_events" VALUES('job-dyb3w55ip9',4,'progress','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','2026-11-21 13:30:28.139347');
INSERT INTO "job_events" VALUES('job-dyb3w55ip9',5,'state_changed','{"state": "pausing", "reason": "pause requested"}','2026-11-21 13:30:28.144468');
INSERT INTO "job_events" VALUES('job-dyb3w55ip9',6,'state_changed','{"state": "paused", "reason": ""}','2026-11-21 13:30:28.148326');
INSERT INTO "job_events" VALUES('job-zumrrzvdai',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.152333');
INSERT INTO "job_events" VALUES('job-zumrrzvdai',2,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:28.156917');
INSERT INTO "job_events" VALUES('job-zumrrzvdai',3,'state_changed','{"state": "running", "reason": ""}','2026-11-21 13:30:28.161036');
INSERT INTO "job_events" VALUES('job-zumrrzvdai',4,'progress','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','2026-11-21 13:30:28.164011');
INSERT INTO "job_events" VALUES('job-zumrrzvdai',5,'state_changed','{"state": "queued", "reason": "the worker died with status -9; starting again"}','2026-11-21 13:30:28.172648');
INSERT INTO "job_events" VALUES('job-zumrrzvdai',6,'state_changed','{"state": "validating", "reason": ""}','2026-11-21 13:30:28.177104');
INSERT INTO "job_events" VALUES('job-33jknm24ib',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.181329');
INSERT INTO "job_events" VALUES('job-33jknm24ib',2,'state_changed','{"state": "cancelled", "reason": "cancel requested"}','2026-11-21 13:30:28.185772');
INSERT INTO "job_events" VALUES('job-s65wb553xi',1,'state_changed','{"state": "queued", "reason": ""}','2026-11-21 13:30:28.189628');
CREATE TABLE jobs (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(63) NOT NULL, 
	request_id VARCHAR(128), 
	base_model VARCHAR(160) NOT NULL, 
	base_version VARCHAR(100) NOT NULL, 
	base_digest VARCHAR(64) NOT NULL, 
	dataset_version VARCHAR(100) NOT NULL, 
	dataset_digest VARCHAR(64) NOT NULL, 
	output_model VARCHAR(80) NOT NULL, 
	recipe VARCHAR(63) NOT NULL, 
	spec JSON NOT NULL, 
	merge BOOLEAN NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	error TEXT DEFAULT '' NOT NULL, 
	error_reason VARCHAR(63) DEFAULT '' NOT NULL, 
	progress JSON, 
	result_version VARCHAR(100) DEFAULT '' NOT NULL, 
	merged_version VARCHAR(100) DEFAULT '' NOT NULL, 
	lease_epoch INTEGER DEFAULT '0' NOT NULL, 
	crash_count INTEGER DEFAULT '0' NOT NULL, 
	lease_expire_time DATETIME, 
	worker_sequence INTEGER DEFAULT '0' NOT NULL, 
	event_sequence INTEGER DEFAULT '0' NOT NULL, 
	create_time DATETIME NOT NULL, 
	update_time DATETIME NOT NULL, 
	end_time DATETIME, 
	UNIQUE (id), 
	UNIQUE (request_id)
);
INSERT INTO "jobs" VALUES(1,'job-mvecuy4dja','request-lora','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/lora','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'succeeded','','','{"learning_rate": 4.934798141786879e-10, "epoch": 0.5714285714285714, "step": 4, "total_steps": 4, "loss": 0.0012999120406601901, "tokens_per_second": 1451.9095885759473, "eta_seconds": 0.0}','models/lora/versions/1','models/lora/versions/2',1,0,'2026-11-21 13:30:24.459179',12,16,'2026-11-21 13:30:01.543647','2026-11-21 13:30:14.462683','2026-11-21 13:30:14.462683');
INSERT INTO "jobs" VALUES(2,'job-ehwvsvbsru','request-full','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/full','full','{"method": "full", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 2e-05, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": []}',0,'succeeded','','','{"learning_rate": 4.934798141786878e-11, "epoch": 0.5714285714285714, "step": 4, "total_steps": 4, "loss": 0.0012971492729155142, "tokens_per_second": 2058.2701224507664, "eta_seconds": 0.0}','models/full/versions/1','',1,0,'2026-11-21 13:30:29.181866',8,11,'2026-11-21 13:30:14.490976','2026-11-21 13:30:19.184296','2026-11-21 13:30:19.184296');
INSERT INTO "jobs" VALUES(3,'job-hpfax376rx','request-qlora','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/qlora','qlora','{"method": "lora", "quantization": "nf4", "lora": {"r": 4, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": true}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.001, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 7, "save_steps": 2, "logging_steps": 2, "sample_prompts": []}',0,'succeeded','','','{"learning_rate": 2.467399070893439e-09, "epoch": 0.5714285714285714, "step": 4, "total_steps": 4, "loss": 0.01669332981186588, "tokens_per_second": 2010.0681127495063, "eta_seconds": 0.0}','models/qlora/versions/1','',1,0,'2026-11-21 13:30:34.207409',8,11,'2026-11-21 13:30:19.207917','2026-11-21 13:30:25.347140','2026-11-21 13:30:25.347140');
INSERT INTO "jobs" VALUES(4,'job-9zevw3pbn3','request-failed','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/failed','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 8, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": []}',0,'failed','40 rows have no answer left within max_length=8 tokens, the first is row 1; raise spec.max_length or shorten them','DATA_CONTRACT',NULL,'','',1,0,'2026-11-21 13:30:37.523281',1,3,'2026-11-21 13:30:25.370002','2026-11-21 13:30:28.054108','2026-11-21 13:30:28.054108');
INSERT INTO "jobs" VALUES(5,'job-wh3wvt4r79','request-validating','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'validating','','',NULL,'','',1,0,'2026-11-22 13:30:28.070976',0,2,'2026-11-21 13:30:28.067561','2026-11-21 13:30:28.072656',NULL);
INSERT INTO "jobs" VALUES(6,'job-8n7eaet3r4','request-running','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'running','','','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','','',1,0,'2026-11-22 13:30:28.078381',5,4,'2026-11-21 13:30:28.075147','2026-11-21 13:30:28.088208',NULL);
INSERT INTO "jobs" VALUES(7,'job-utm5ciu2tb','request-pausing','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'pausing','','','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','','',1,0,'2026-11-22 13:30:28.093418',5,5,'2026-11-21 13:30:28.089885','2026-11-21 13:30:28.105612',NULL);
INSERT INTO "jobs" VALUES(8,'job-fpptgsynqi','request-cancelling','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'cancelling','','','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','','',1,0,'2026-11-22 13:30:28.111596',5,5,'2026-11-21 13:30:28.108189','2026-11-21 13:30:28.124956',NULL);
INSERT INTO "jobs" VALUES(9,'job-dyb3w55ip9','request-paused','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'paused','','','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','','',1,0,'2026-11-22 13:30:28.130602',5,6,'2026-11-21 13:30:28.127415','2026-11-21 13:30:28.147213',NULL);
INSERT INTO "jobs" VALUES(10,'job-zumrrzvdai','request-crashed','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'validating','','','{"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}','','',2,1,'2026-11-22 13:30:28.174104',5,6,'2026-11-21 13:30:28.150130','2026-11-21 13:30:28.176069',NULL);
INSERT INTO "jobs" VALUES(11,'job-33jknm24ib','request-cancelled','seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'cancelled','','',NULL,'','',0,0,NULL,0,2,'2026-11-21 13:30:28.179246','2026-11-21 13:30:28.184668','2026-11-21 13:30:28.184668');
INSERT INTO "jobs" VALUES(12,'job-s65wb553xi',NULL,'seed','models/seed/versions/1','953fe9cb6fe7cb9b42f06b5071da6ae8370f6c52952657f9987f18298a978e50','datasets/ordinary/versions/1','6c4390d6601271b38e9dc56ffd7e648a980d426bb8bc7cc52eefefc0124e0813','models/later','lora','{"method": "lora", "quantization": "none", "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": [], "use_rslora": false}, "num_epochs": 3.0, "max_steps": 4, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0002, "lr_scheduler": "cosine", "warmup_ratio": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 256, "packing": true, "seed": 42, "save_steps": 2, "logging_steps": 2, "sample_prompts": ["Hello!", "\u4f60\u597d"]}',1,'queued','','',NULL,'','',0,0,NULL,0,1,'2026-11-21 13:30:28.188008','2026-11-21 13:30:28.188008',NULL);
CREATE INDEX ix_jobs_state ON jobs (state);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',12);
COMMIT;
